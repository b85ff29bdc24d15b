// Runs a model from a file of lstmcore.save over whole sequences, and prints what it gives:
//
//     run_model model.safetensors sequence.csv...
//
// Each CSV file is one sequence: a line for every step, with the features between commas, or one
// id, for a model that begins with an Embedding. All are one batch, whatever their lengths. For
// each sequence it prints its y, a line for every step, or a single one where the model pools; then
// an empty line.
#include <lstmcore/network.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

/// The numbers of a file, (steps, features).
struct Sequence {
    std::vector<float> numbers;
    int64_t steps = 0;
};

Sequence read_csv(const std::string& path, int64_t features) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    Sequence sequence;
    for (std::string line; std::getline(file, line); ++sequence.steps) {
        std::istringstream cells(line);
        int64_t count = 0;
        for (std::string cell; std::getline(cells, cell, ','); ++count)
            sequence.numbers.push_back(std::stof(cell));
        if (count != features)
            throw std::runtime_error(path + ": step " + std::to_string(sequence.steps) + " has " +
                                     std::to_string(count) + " numbers, expected " +
                                     std::to_string(features));
    }
    return sequence;
}

void print_row(const float* y, int64_t features) {
    for (int64_t i = 0; i < features; ++i) std::printf("%s%.9g", i ? "," : "", double(y[i]));
    std::printf("\n");
}

void run(const std::string& model, const std::vector<std::string>& paths) {
    const auto network = lstmcore::load_network<float>(model);
    if (network.inputs().size() != 1 || !network.inputs()[0].steps)
        throw std::runtime_error(model + ": expected a model of one sequence");
    const bool takes_ids = network.inputs()[0].features == 0;
    const int64_t features = takes_ids ? 1 : network.inputs()[0].features;

    std::vector<Sequence> sequences;
    std::vector<int64_t> lengths;
    for (const std::string& path : paths) {
        sequences.push_back(read_csv(path, features));
        lengths.push_back(sequences.back().steps);
    }
    // Time is the first axis: (T, B, features).
    const auto batch = static_cast<int64_t>(sequences.size());
    const int64_t steps = *std::max_element(lengths.begin(), lengths.end());
    std::vector<float> x(static_cast<size_t>(steps * batch * features));
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t t = 0; t < lengths[b]; ++t)
            std::copy_n(&sequences[b].numbers[t * features], features,
                        &x[(t * batch + b) * features]);
    const std::vector<int64_t> ids(x.begin(), x.end());

    lstmcore::NetworkInput<float> input;
    if (takes_ids)
        input.ids = ids.data();
    else
        input.x = x.data();
    input.steps = steps;
    input.lengths = lengths.data();
    const lstmcore::NetworkOutput<float> output = network.forward(input, batch);

    for (int64_t b = 0; b < batch; ++b) {
        const int64_t end = output.lengths.empty() ? output.steps : output.lengths[b];
        for (int64_t t = 0; t < end; ++t)
            print_row(&output.y[(t * batch + b) * output.features], output.features);
        std::printf("\n");
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: run_model model.safetensors sequence.csv...\n");
        return 2;
    }
    try {
        run(argv[1], {argv + 2, argv + argc});
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "run_model: %s\n", error.what());
        return 1;
    }
}

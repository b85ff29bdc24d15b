// Micro-benchmarks of lstmcore. `--benchmark_filter=layer/lstm` chooses by name, as in
//     limit/multiply-add/x86-64-v4         activation/tanh/x86-64-v4/float32
//     product/x86-64-v4/B8/K256/N1024      outer/x86-64-v4/M640/J1024/N256
//     step/lstm/x86-64-v4/B1/H64           layer/gru/x86-64-v3/T100/B32/H256
//     train/rnn/x86-64-v4/T100/B32/H64     pack/lstm/x86-64-v4/H256/train
//     stream/lstm/x86-64-v4/H16            stream-block/gru/x86-64-v4/T64/H64
#include "machine/threads.h"
#include "micro.h"

int main(int argc, char** argv) {
    benchmark::AddCustomContext("lstmcore threads", std::to_string(lstmcore::get_num_threads()));
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    add_limits();
    add_kernels();
    add_layers();
    add_streams();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}

// Dropout by a counter: whether an element is kept depends on the key and its place alone, so that
// threads, padding and the order of work cannot change it.
#pragma once

#include <cstdint>

#include "lstmcore/layer.h"

namespace lstmcore {

class Dropout {
public:
    Dropout() = default;
    Dropout(uint64_t key, double probability)
        : key_(key), threshold_(uint64_t(probability * 4294967296.0)) {}

    /// The random stream of one use, layer or direction of a layer, step and row; kept(stream,
    /// feature) tells its elements.
    uint64_t stream(DropoutUse use, int64_t part, int64_t t, int64_t b) const {
        const uint64_t place = uint64_t(use) << 48 | uint64_t(part);
        return mix(mix(mix(key_ + place) + uint64_t(t)) + uint64_t(b));
    }
    bool kept(uint64_t stream, int64_t feature) const {
        return (mix(stream + uint64_t(feature) * 0x9e3779b97f4a7c15u) >> 32) >= threshold_;
    }

private:
    // The finalizer of SplitMix64 (Steele, Lea & Flood 2014).
    static uint64_t mix(uint64_t z) {
        z += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }

    uint64_t key_ = 0, threshold_ = 0;
};

}  // namespace lstmcore

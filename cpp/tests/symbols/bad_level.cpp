// What a kernel object must not be: the symbols test expects each fault to be found.
#include "shared.h"

namespace lstmcore {
namespace kernels {
extern const int table_v9;
const int table_v9 = 9;
}  // namespace kernels

int exported_besides_the_table(int x) {
    return shared_with_others(x);
}
}  // namespace lstmcore

#include "shared.h"

int caller(int x) {
    return shared_with_others(x);
}

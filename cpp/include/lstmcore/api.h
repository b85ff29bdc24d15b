// What a shared library exports: everything declared in the headers' namespaces. Templates of
// functions have to be marked once more. A static library exports nothing, so that a plug-in that
// contains it does not either.
#pragma once

#ifdef LSTMCORE_SHARED
#define LSTMCORE_API [[gnu::visibility("default")]]
#else
#define LSTMCORE_API
#endif

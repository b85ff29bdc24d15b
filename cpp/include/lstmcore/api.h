// What a shared library shows: what stands in the headers' namespaces. Templates of functions need
// the word once more. A static library shows nothing, so that a plug-in with it inside does not
// either.
#pragma once

#ifdef LSTMCORE_SHARED
#define LSTMCORE_API [[gnu::visibility("default")]]
#else
#define LSTMCORE_API
#endif

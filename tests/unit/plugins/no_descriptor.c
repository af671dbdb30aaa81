// A shared object that is no plugin.
__attribute__((visibility("default"))) int some_library_function(void) { return 1; }

int Java_simulated_Native_answer(void *env, void *class) {
    (void)env;
    (void)class;
    return 42;
}

package simulated;

/** Proves that the library of the other jar was found: the real viewers decode the picture in theirs. */
final class Native {
    private Native() {}

    static native int answer();

    static void check() {
        System.loadLibrary("simulatedkvm");
        if (answer() != 42) {
            throw new UnsatisfiedLinkError("libsimulatedkvm is another one");
        }
    }
}

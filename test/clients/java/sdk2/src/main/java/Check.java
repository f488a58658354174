import java.util.function.BooleanSupplier;

/** What the programs expect. A broken expectation ends the program with status 1. */
final class Check {
    static void that(boolean holds, String what, Object... got) {
        if (!holds) {
            throw new AssertionError(what + ": " + java.util.Arrays.toString(got));
        }
    }

    /** Waits for what the server does in its own time. */
    static void eventually(String what, BooleanSupplier holds) throws InterruptedException {
        long deadline = System.nanoTime() + 120_000_000_000L;
        while (!holds.getAsBoolean()) {
            that(System.nanoTime() < deadline, what);
            Thread.sleep(50);
        }
    }

    /** Runs a call that must fail, and gives its error. */
    static <E extends Throwable> E fails(Class<E> with, Runnable call) {
        try {
            call.run();
        } catch (Throwable e) {
            that(with.isInstance(e), "want " + with.getSimpleName(), e);
            return with.cast(e);
        }
        throw new AssertionError("succeeds, want " + with.getSimpleName());
    }

    private Check() {}
}

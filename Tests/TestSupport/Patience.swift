/// How long a test waits for what is to come. Far more than it ever takes: it only keeps a test from hanging, and says
/// nothing of how fast anything is.
public enum Patience {
    public static let seconds = 120

    /// From now on.
    public static var end: ContinuousClock.Instant { .now + .seconds(seconds) }
}

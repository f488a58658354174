import software.amazon.kinesis.leases.LeaseManagementConfig;

/** What the two versions of the library have in different places. */
final class Tuning {
    /**
     * The leader assigns the leases, by what the workers report: a dead leader is replaced, and a report made, within
     * seconds.
     */
    static LeaseManagementConfig shortTimes(LeaseManagementConfig c) {
        c.workerUtilizationAwareAssignmentConfig()
                .inMemoryWorkerMetricsCaptureFrequencyMillis(500).workerMetricsReporterFreqInMillis(2000);
        return c.leaseAssignmentIntervalMillis(4000L)
                .dynamoDbLockBasedLeaderLeaseDurationInMillis(6000)
                .dynamoDbLockBasedLeaderHeartbeatPeriodInMillis(2000);
    }
}

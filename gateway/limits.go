package gateway

// The quotas of an account that AWS has. They are imposed if Config.AccountLimits
// says so; without it only what protects the cluster's memory is bounded.

const (
	awsCreatingStreams   = 5
	awsConsumers         = 20
	awsConsumersWarm     = 50 // with a commitment
	awsCreatingConsumers = 5
	// maxWarmMibps is the most throughput that a stream can be kept ready for.
	maxWarmMibps = 10 << 10
	// maxConsumers bounds the consumers of a stream, which its metadata holds.
	maxConsumers = 1000
)

// dailyLimits are how often a stream may be changed within 24 hours; 0 is as
// often as wanted.
type dailyLimits struct{ modes, shardCounts, encryptions uint32 }

func (g *Gateway) dailyLimits() dailyLimits {
	if !g.cfg.AccountLimits {
		return dailyLimits{}
	}
	return dailyLimits{modes: 2, shardCounts: 10, encryptions: 25}
}

// creatingLimit is how many streams may be CREATING at once; 0 is any number.
func (g *Gateway) creatingLimit() uint32 {
	if !g.cfg.AccountLimits {
		return 0
	}
	return awsCreatingStreams
}

// consumerLimits are how many consumers a stream may have, and how many of them
// CREATING; 0 is any number.
type consumerLimits struct{ all, creating uint32 }

func (g *Gateway) consumerLimits(m *metadata) consumerLimits {
	switch {
	case !g.cfg.AccountLimits:
		return consumerLimits{all: maxConsumers}
	case commitmentInForce(m.cluster.GetCommitment(), g.cfg.Now().UnixMilli()):
		return consumerLimits{all: awsConsumersWarm, creating: awsCreatingConsumers}
	}
	return consumerLimits{all: awsConsumers, creating: awsCreatingConsumers}
}

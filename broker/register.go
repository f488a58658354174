package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// initCluster makes the first entry of a new cluster's metadata, with the
// cluster id that its founders agreed on. Who of them comes first does not
// matter: a second one is refused.
func (b *Broker) initCluster(ctx context.Context) error {
	for {
		state, changed := b.meta.Watch()
		if known := state.Cluster().GetId(); known != "" {
			if known != b.identity.ClusterID {
				return fmt.Errorf("the metadata is of cluster %s, but identity.json says %s: these files do not belong together", known, b.identity.ClusterID)
			}
			return nil
		}
		if b.cfg.Lone && len(b.records.Replicas()) > 0 {
			return fmt.Errorf("the metadata in raft/ is empty but the record log is not: restore raft/ from a backup of this directory")
		}
		result, err := b.control.Propose(ctx, &pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
			ClusterId: b.identity.ClusterID, TokenKey: newTokenKey(), AccountId: defaultAccount,
			Limits: &pb.Limits{Shards: defaultShardLimit, OnDemandStreams: defaultOnDemandLimit},
		}}})
		switch {
		case errors.Is(err, stream.Timeout): // perhaps it was applied
		case err != nil:
			return fmt.Errorf("can't form the cluster: %w", err)
		case result.Error != pb.ErrorKind_ERROR_KIND_NONE && result.Error != pb.ErrorKind_ERROR_KIND_ALREADY_EXISTS:
			return fmt.Errorf("can't form the cluster: %s", result.Detail)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("can't form the cluster: %w", ctx.Err())
		}
	}
}

// register makes this process known to the metadata and gives its incarnation.
// Before that nothing may be led, followed or acknowledged.
func (b *Broker) register(ctx context.Context, cfg Config, grpcAddress, raftAddress, gossipAddress string) (incarnation uint64, err error) {
	mark, err := loadIncarnation(cfg.DataDir)
	if err != nil {
		return 0, err
	}
	_, frame := b.records.Position()
	for {
		known, err := b.registered(ctx)
		if err != nil {
			return 0, err
		}
		last := mark.last(known.GetIncarnation())
		mark = incarnationMark{Confirmed: last, Attempted: known.GetIncarnation() + 1}
		if err := mark.save(cfg.DataDir); err != nil {
			return 0, err
		}
		result, err := b.control.Propose(ctx, &pb.Command{Op: &pb.Command_RegisterBroker{RegisterBroker: &pb.RegisterBroker{
			Broker: &pb.Broker{
				NodeId: string(b.identity.NodeID), DiskId: b.identity.DiskID, Zone: cfg.Zone, FeatureLevel: featureLevel,
				GrpcAddress: grpcAddress, RaftAddress: raftAddress, GossipAddress: gossipAddress, HttpAddress: cfg.HTTPAddress,
				ShardLimits: cfg.ShardLimits,
			},
			LastIncarnation: last, JournalFrame: frame,
		}}})
		switch {
		case errors.Is(err, stream.Timeout):
			continue // whether it was applied shows in the metadata
		case err != nil:
			return 0, err
		case result.Error != pb.ErrorKind_ERROR_KIND_NONE:
			return 0, errors.New(result.Detail)
		}
		mark = incarnationMark{Confirmed: result.Incarnation, Attempted: result.Incarnation}
		return result.Incarnation, mark.save(cfg.DataDir)
	}
}

// featureLevel is what this program knows to do; see raftfsm.
const featureLevel = raftfsm.FeatureOnDemand

// registered gives what the metadata knows of this node, verified with the raft
// leader.
func (b *Broker) registered(ctx context.Context) (*pb.Broker, error) {
	index, err := b.control.ReadIndex(ctx)
	if err != nil {
		return nil, err
	}
	for {
		state, changed := b.meta.Watch()
		if state.Index() >= index {
			return state.Broker(string(b.identity.NodeID)), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sinceAnswered gives how long ago the raft leader answered a beat.
func (s *session) sinceAnswered() time.Duration {
	at := s.LastAnswered()
	if at.IsZero() {
		return time.Hour
	}
	return time.Since(at)
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"shardstream/broker/member"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// gather starts gossip, and what finds this node its place. raftState says
// whether raft's directory holds anything. The caller serves the former's
// Promise before it calls find, and closes the group.
func gather(cfg Config, id *identity, raftState bool) (*member.Group, *former, error) {
	host, ip, err := advertised(cfg)
	if err != nil {
		return nil, nil, err
	}
	p, err := loadPromise(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	facts := member.Facts{
		NodeID: id.NodeID, DiskID: id.DiskID, Zone: cfg.Zone, ClusterID: id.ClusterID,
		GRPC: withPort(host, cfg.GRPCListener), Raft: withPort(host, cfg.RaftListener), HTTP: cfg.HTTPAddress,
		Expect: cfg.BootstrapExpect,
	}
	gossip := member.Config{
		Facts: facts, Bind: cfg.GossipBind, AdvertiseIP: ip, Seeds: cfg.Join, Key: cfg.GossipKey, Logger: cfg.Logger,
	}
	if cfg.gossip != nil {
		cfg.gossip(&gossip)
	}
	group, err := member.Open(gossip)
	if err != nil {
		return nil, nil, err
	}
	store := formFiles{dir: cfg.DataDir, saveCluster: func(cluster string) error { return id.setCluster(cfg.DataDir, cluster) }}
	return group, newFormer(facts, group, formClient{cfg.dial}, store, id.ClusterID, raftState, p, cfg.Logger), nil
}

// lookupAdvertised bounds the wait for DNS to know this node's own name.
const lookupAdvertised = 5 * time.Second

// advertised gives the host that others are told, and the IP that gossip, which
// knows no names, uses for it; nil leaves that to gossip.
func advertised(cfg Config) (host string, ip net.IP, err error) {
	if cfg.Advertise == "" {
		if a, ok := cfg.GRPCListener.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
			return a.IP.String(), a.IP, nil
		}
		if ip, err = member.PrivateIP(); err != nil {
			return "", nil, err
		}
		return ip.String(), ip, nil
	}
	if ip := net.ParseIP(cfg.Advertise); ip != nil {
		return cfg.Advertise, ip, nil
	}
	if _, _, err := net.SplitHostPort(cfg.Advertise); err == nil {
		return "", nil, stream.Errorf(stream.Invalid, "broker.Open", "--advertise %s: want a host without a port; the ports are those that the node listens on", cfg.Advertise)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupAdvertised)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, cfg.Advertise)
	if err != nil {
		// A pod's name may come into DNS only once the pod runs.
		cfg.Logger.Warn("DNS does not know this node's own name yet; gossip uses its address instead", "advertise", cfg.Advertise, "error", err)
		return cfg.Advertise, nil, nil
	}
	for _, a := range ips {
		if a.IP.To4() != nil {
			return cfg.Advertise, a.IP, nil
		}
	}
	return cfg.Advertise, ips[0].IP, nil
}

func withPort(host string, l net.Listener) string {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return net.JoinHostPort(host, strconv.Itoa(a.Port))
	}
	return l.Addr().String()
}

// addressOf tells raft where a server is now, by gossip: so an address that
// changes with a restart needs no change of raft's configuration.
func addressOf(group *member.Group) func(serverID string) (string, bool) {
	return func(serverID string) (string, bool) {
		node, disk, _ := strings.Cut(serverID, "/")
		for _, m := range group.Members() {
			if string(m.NodeID) == node && strings.HasPrefix(m.DiskID, disk) && m.Raft != "" {
				return m.Raft, true
			}
		}
		return "", false
	}
}

// memberMessages gives the members for NodeStatus.
func memberMessages(members []member.Member) []*pb.Member {
	list := make([]*pb.Member, len(members))
	for i, m := range members {
		list[i] = &pb.Member{NodeId: string(m.NodeID), Address: m.Gossip, State: string(m.State), GrpcAddress: m.GRPC, Zone: m.Zone}
	}
	return list
}

// validateCluster reports every mistake in the fields of a node with peers.
func (c Config) validateCluster() error {
	var errs []error
	if c.GRPCListener == nil || c.RaftListener == nil || c.GossipBind == "" {
		errs = append(errs, errors.New("a node with peers needs listeners for gRPC, raft and gossip"))
	}
	if c.BootstrapExpect < 0 {
		errs = append(errs, fmt.Errorf("--bootstrap-expect %d: want the number of nodes that form the cluster together, or 0 to join one", c.BootstrapExpect))
	}
	if err := errors.Join(errs...); err != nil {
		return stream.Errorf(stream.Invalid, "broker.Open", "%w", err)
	}
	return nil
}

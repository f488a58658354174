package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "shardstream/proto/shardstream/v1"
)

const (
	nodeTimeout     = time.Second     // for a node's own figures
	metadataTimeout = 5 * time.Second // for all of the metadata, of one broker
	nodesAtOnce     = 32
)

// clusterView is what a command has found out: the metadata as one broker has
// it, and what each node says of itself.
type clusterView struct {
	askedAt string // the broker that gave the metadata
	meta    metadataView
	nodes   map[string]*nodeView // by node id, of all brokers in the metadata
}

// metadataView is one complete state of the metadata.
type metadataView struct {
	index   uint64
	cluster *pb.ClusterInfo
	brokers []*pb.Broker
	streams map[uint64]*pb.Stream
	shards  map[uint64][]*pb.Shard // by stream id, in order of their numbers
}

// nodeView is what a node says of itself.
type nodeView struct {
	status  *pb.NodeStatusResponse // nil: it didn't answer
	problem string                 // why not
}

// lookAtCluster asks the first of the brokers that answers for the metadata,
// and all nodes for their own figures.
func lookAtCluster(ctx context.Context, addresses []string, replicas bool) (*clusterView, error) {
	v, err := lookAtMetadata(ctx, addresses)
	if err != nil {
		return nil, err
	}
	v.askNodes(ctx, &pb.NodeStatusRequest{Replicas: replicas})
	return v, nil
}

func lookAtMetadata(ctx context.Context, addresses []string) (*clusterView, error) {
	var errs []error
	for _, a := range addresses {
		meta, err := fetchMetadata(ctx, a)
		if err == nil {
			return &clusterView{askedAt: a, meta: meta}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, brokerError(a, err))
	}
	if len(errs) == 0 {
		return nil, usagef("--broker: no broker is named")
	}
	if len(errs) > 1 {
		errs = []error{fmt.Errorf("none of the %d brokers named by --broker answers: %w", len(errs), errors.Join(errs...))}
	}
	return nil, oneLine{errs[0]}
}

// oneLine is an error in one line, however many it joins.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.ReplaceAll(e.error.Error(), "\n", "; ") }
func (e oneLine) Unwrap() error { return e.error }

func dialBroker(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
}

// fetchMetadata takes a watch's first step, which holds everything.
func fetchMetadata(ctx context.Context, address string) (metadataView, error) {
	v := metadataView{streams: make(map[uint64]*pb.Stream), shards: make(map[uint64][]*pb.Shard)}
	conn, err := dialBroker(address)
	if err != nil {
		return v, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	watch, err := pb.NewClusterClient(conn).WatchMetadata(ctx, &pb.WatchMetadataRequest{})
	if err != nil {
		return v, err
	}
	for started := false; ; {
		e, err := watch.Recv()
		if err != nil {
			return v, err
		}
		started = started || e.Reset_
		if !started {
			continue
		}
		v.add(e)
		if !e.More {
			return v, nil
		}
	}
}

func (v *metadataView) add(e *pb.MetadataEvent) {
	v.index = e.Index
	if e.Cluster != nil {
		v.cluster = e.Cluster
	}
	if e.Brokers != nil {
		v.brokers = e.Brokers
	}
	for _, s := range e.Streams {
		v.streams[s.Id] = s
	}
	for _, s := range e.Shards {
		v.shards[s.StreamId] = append(v.shards[s.StreamId], s)
	}
}

// streamsByName gives all streams in the order of their names.
func (v *metadataView) streamsByName() []*pb.Stream {
	return slices.SortedFunc(maps.Values(v.streams), func(a, b *pb.Stream) int { return cmp.Compare(a.Name, b.Name) })
}

// askNodes asks all brokers at once.
func (v *clusterView) askNodes(ctx context.Context, req *pb.NodeStatusRequest) {
	v.nodes = make(map[string]*nodeView)
	slots := make(chan struct{}, nodesAtOnce)
	var asking sync.WaitGroup
	for _, b := range v.meta.brokers {
		n := &nodeView{}
		v.nodes[b.NodeId] = n
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			address := b.GrpcAddress
			if len(v.meta.brokers) == 1 {
				address = v.askedAt // a lone node may not know how it is reached
			}
			n.status, n.problem = askNode(ctx, address, b.NodeId, req)
		})
	}
	asking.Wait()
}

func askNode(ctx context.Context, address, node string, req *pb.NodeStatusRequest) (*pb.NodeStatusResponse, string) {
	if address == "" {
		return nil, "its address is unknown"
	}
	conn, err := dialBroker(address)
	if err != nil {
		return nil, err.Error()
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	answer, err := pb.NewClusterClient(conn).NodeStatus(ctx, req)
	switch {
	case err != nil:
		return nil, reasonOf(err)
	case answer.NodeId != node:
		return nil, fmt.Sprintf("node %s answers at %s", answer.NodeId, address)
	}
	return answer, ""
}

// brokerError is what a user reads when a broker could not be asked.
func brokerError(address string, err error) error {
	return fmt.Errorf("broker %s: %s", address, reasonOf(err))
}

// reasonOf gives the useful part of a gRPC error.
func reasonOf(err error) string {
	s, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	if s.Code() == codes.DeadlineExceeded {
		return "no answer in time"
	}
	text := s.Message()
	if strings.Contains(text, "server preface") || strings.Contains(text, "first record does not look like a TLS handshake") || strings.Contains(text, "malformed HTTP") {
		return "something answers there that is no broker's gRPC port (--grpc-listen, by default 7070)"
	}
	for _, mark := range []string{"transport: ", "rror while dialing: "} {
		if _, rest, found := strings.Cut(text, mark); found {
			text = rest
		}
	}
	return strings.Trim(text, `"`)
}

// raftView is raft as the nodes that answered see it.
type raftView struct {
	leader  string // known to whoever has the newest term; empty: none
	term    uint64
	servers []*pb.RaftServer // of the newest configuration seen
}

func (v *clusterView) raft() (r raftView) {
	var newest uint64
	for _, name := range sortedKeys(v.nodes) {
		st := v.nodes[name].status.GetRaft()
		if st == nil {
			continue
		}
		if st.Term > r.term || st.Term == r.term && r.leader == "" {
			r.term, r.leader = st.Term, st.LeaderNode
		}
		if len(st.Servers) > 0 && (r.servers == nil || st.LastIndex > newest) {
			newest, r.servers = st.LastIndex, st.Servers
		}
	}
	return r
}

// members gives gossip's view: that of the node that sees the most.
func (v *clusterView) members() (best []*pb.Member) {
	for _, name := range sortedKeys(v.nodes) {
		if m := v.nodes[name].status.GetMembers(); len(m) > len(best) {
			best = m
		}
	}
	return best
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

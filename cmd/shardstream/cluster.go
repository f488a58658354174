package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	pb "shardstream/proto/shardstream/v1"
)

// clusterCmd is `shardstream cluster`, for operators.
type clusterCmd struct {
	Status    clusterStatusCmd  `cmd:"" help:"Say whether all is well, and if not, what is wrong and what to do."`
	Members   clusterMembersCmd `cmd:"" help:"List the nodes, as gossip and as the metadata see them."`
	Drain     drainCmd          `cmd:"" help:"Take a broker out of use: its replicas and leaderships move to others."`
	Undrain   undrainCmd        `cmd:"" help:"Take a drain back."`
	Remove    removeCmd         `cmd:"" help:"Take a broker that holds nothing out of the cluster."`
	Rebalance rebalanceCmd      `cmd:"" help:"Even out replicas and leaderships over the brokers."`
	Recover   recoverCmd        `cmd:"" help:"Give lost records up for good, so that their shards serve the rest again."`
}

// brokerFlags is how a command finds the cluster.
type brokerFlags struct {
	Broker []string `default:"127.0.0.1:7070" placeholder:"HOST:PORT" help:"Brokers to ask, by gRPC address, repeatable or comma-separated: the first that answers is enough (${default})."`
}

// clusterMembersCmd is `shardstream cluster members`.
type clusterMembersCmd struct {
	brokerFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is what `shardstream cluster members --help` says below its first line.
func (clusterMembersCmd) Help() string {
	return `GOSSIP is what the nodes hear of each other, for finding addresses; STATE is what the cluster has decided.
A node that is alive by gossip and has no state has not joined yet: see its log.

Examples:
  shardstream cluster members
  shardstream cluster members --broker 10.0.0.1:7070,10.0.0.2:7070 --json`
}

// memberRow is one node as --json prints it.
type memberRow struct {
	Node        string `json:"node"`
	State       string `json:"state"`  // by the metadata; empty: not registered
	Gossip      string `json:"gossip"` // empty: gossip does not know it
	Zone        string `json:"zone"`
	GRPC        string `json:"grpcAddress"`
	GossipAt    string `json:"gossipAddress"`
	Raft        string `json:"raftAddress"`
	HTTP        string `json:"httpAddress"`
	Role        string `json:"raftRole"` // leader, voter, nonvoter; empty: none
	Incarnation uint64 `json:"incarnation"`
}

// Run is the command's entry.
func (c *clusterMembersCmd) Run(e *env) error {
	v, err := lookAtCluster(e.ctx, c.Broker, false)
	if err != nil {
		return err
	}
	rows := memberRows(v)
	if c.JSON {
		return printJSON(e.stdout, map[string]any{"cluster": v.meta.cluster.GetId(), "members": rows})
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tSTATE\tGOSSIP\tRAFT\tZONE\tGRPC\tRAFT ADDRESS\tGOSSIP ADDRESS\tHTTP")
	for _, r := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Node, dash(r.State), dash(r.Gossip), dash(r.Role), dash(r.Zone), dash(r.GRPC), dash(r.Raft), dash(r.GossipAt), dash(r.HTTP))
	}
	return table.Flush()
}

// memberRows joins the three views of a node, by name.
func memberRows(v *clusterView) []memberRow {
	rows := make(map[string]*memberRow)
	row := func(node string) *memberRow {
		if rows[node] == nil {
			rows[node] = &memberRow{Node: node}
		}
		return rows[node]
	}
	for _, b := range v.meta.brokers {
		r := row(b.NodeId)
		r.State, r.Zone, r.Incarnation = stateName(b.State), b.Zone, b.Incarnation
		r.GRPC, r.Raft, r.HTTP, r.GossipAt = b.GrpcAddress, b.RaftAddress, b.HttpAddress, b.GossipAddress
	}
	for _, m := range v.members() {
		r := row(m.NodeId)
		r.Gossip, r.GossipAt = m.State, m.Address
		if r.State == "" {
			r.GRPC, r.Zone = m.GrpcAddress, m.Zone
		}
	}
	raft := v.raft()
	for _, s := range raft.servers {
		r := row(s.NodeId)
		r.Role = raftRole(raft, s.NodeId)
	}
	list := make([]memberRow, 0, len(rows))
	for _, name := range sortedKeys(rows) {
		list = append(list, *rows[name])
	}
	return list
}

func raftRole(raft raftView, node string) string {
	if node == raft.leader {
		return "leader"
	}
	for _, s := range raft.servers {
		switch {
		case s.NodeId != node:
		case s.Voter:
			return "voter"
		default:
			return "nonvoter"
		}
	}
	return ""
}

func stateName(s pb.BrokerState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "BROKER_STATE_"))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// printLine prints JSON in one line.
func printLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// asked ends a command by the user's wish: no failure.
func asked(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

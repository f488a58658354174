package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	pb "shardstream/proto/shardstream/v1"
)

// clusterStatusCmd is `shardstream cluster status`.
type clusterStatusCmd struct {
	brokerFlags
	JSON     bool          `name:"json" help:"Print JSON; with --watch, one object a line."`
	Watch    bool          `help:"Go on looking, until Ctrl-C."`
	Interval time.Duration `default:"1s" help:"Pause between two looks with --watch (${default})."`
}

// Help is what `shardstream cluster status --help` says below its first line.
func (clusterStatusCmd) Help() string {
	return `Asks one broker for the metadata and every node for its own figures, and concludes: what is wrong, and what to do.
Exit status 0 if all is well, 1 if not or if no broker answers.

Examples:
  shardstream cluster status
  shardstream cluster status --broker 10.0.0.1:7070,10.0.0.2:7070
  shardstream cluster status --watch
  shardstream cluster status --json | jq -r '.findings[].what'`
}

// Run is the command's entry.
func (c *clusterStatusCmd) Run(e *env) error {
	if c.Interval <= 0 {
		return usagef("--interval %s: want more than nothing", c.Interval)
	}
	if !c.Watch {
		return c.once(e)
	}
	clear := ""
	if isTerminal(e.stdout) && !c.JSON {
		clear = "\x1b[H\x1b[2J"
	}
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	for {
		v, err := lookAtCluster(e.ctx, c.Broker, true)
		if e.ctx.Err() != nil {
			return nil
		}
		fmt.Fprint(e.stdout, clear)
		switch {
		case err != nil && c.JSON:
			err = printLine(e.stdout, map[string]any{"healthy": false, "findings": []finding{{critical, err.Error(), "name brokers that run with --broker"}}})
		case err != nil:
			_, err = fmt.Fprintf(e.stdout, "%s  %v\n", time.Now().Format(time.TimeOnly), err)
		case c.JSON:
			err = printLine(e.stdout, statusJSON(v, examine(v)))
		default:
			fmt.Fprintln(e.stdout, time.Now().Format(time.TimeOnly))
			err = printStatus(e.stdout, v, examine(v))
		}
		if err != nil {
			return err // stdout is gone
		}
		select {
		case <-e.ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (c *clusterStatusCmd) once(e *env) error {
	v, err := lookAtCluster(e.ctx, c.Broker, true)
	if err != nil {
		return err
	}
	h := examine(v)
	if c.JSON {
		err = printJSON(e.stdout, statusJSON(v, h))
	} else {
		err = printStatus(e.stdout, v, h)
	}
	if err == nil && !h.healthy() {
		err = errSaid
	}
	return err
}

// errSaid ends a command with exit status 1 whose output has said why.
var errSaid = errors.New("not healthy")

// statusReport is what --json prints.
type statusReport struct {
	Healthy  bool         `json:"healthy"`
	Cluster  string       `json:"cluster"`
	AskedAt  string       `json:"askedAt"`
	Index    uint64       `json:"metadataIndex"`
	Raft     raftReport   `json:"raft"`
	Nodes    []nodeReport `json:"nodes"`
	Streams  int          `json:"streams"`
	Shards   shardCounts  `json:"shards"`
	CatchUp  []catchUp    `json:"catchingUp"`
	Findings []finding    `json:"findings"`
}

type raftReport struct {
	Leader    string   `json:"leader"`
	Term      uint64   `json:"term"`
	Voters    []string `json:"voters"`
	Nonvoters []string `json:"nonvoters"`
}

type nodeReport struct {
	Node      string `json:"node"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	Reachable bool   `json:"reachable"`
	Problem   string `json:"problem,omitempty"` // why it is not
	Zone      string `json:"zone"`
	Address   string `json:"grpcAddress"`
	RaftRole  string `json:"raftRole"`
	Leads     int    `json:"leads"`
	Replicas  int    `json:"replicas"`
	InSync    int    `json:"inSync"`
	DiskFree  int64  `json:"diskFreeBytes"`
	Applied   uint64 `json:"appliedIndex"`
	Version   string `json:"version"`
	StartedMs int64  `json:"startedMs"`
}

func statusJSON(v *clusterView, h *health) statusReport {
	raft := v.raft()
	r := statusReport{
		Healthy: h.healthy(), Cluster: v.meta.cluster.GetId(), AskedAt: v.askedAt, Index: v.meta.index,
		Raft: raftReport{Leader: raft.leader, Term: raft.term, Voters: []string{}, Nonvoters: []string{}}, Nodes: []nodeReport{},
		Streams: len(v.meta.streams), Shards: h.shards, CatchUp: slices.Concat([]catchUp{}, h.catchUp), Findings: slices.Concat([]finding{}, h.findings),
	}
	for _, s := range raft.servers {
		if s.Voter {
			r.Raft.Voters = append(r.Raft.Voters, s.NodeId)
		} else {
			r.Raft.Nonvoters = append(r.Raft.Nonvoters, s.NodeId)
		}
	}
	slices.Sort(r.Raft.Voters)
	slices.Sort(r.Raft.Nonvoters)
	leads, replicas, inSync := v.meta.loads()
	for _, b := range v.meta.brokers {
		n := v.nodes[b.NodeId]
		r.Nodes = append(r.Nodes, nodeReport{
			Node: b.NodeId, State: stateName(b.State), Reason: b.Reason, Reachable: n.status != nil, Problem: n.problem,
			Zone: b.Zone, Address: b.GrpcAddress, RaftRole: raftRole(raft, b.NodeId),
			Leads: leads[b.NodeId], Replicas: replicas[b.NodeId], InSync: inSync[b.NodeId],
			DiskFree: n.status.GetDiskFree(), Applied: n.status.GetRaft().GetAppliedIndex(), Version: n.status.GetVersion(), StartedMs: n.status.GetStartedMs(),
		})
	}
	return r
}

// loads counts, per node, what the metadata gives it.
func (v *metadataView) loads() (leads, replicas, inSync map[string]int) {
	leads, replicas, inSync = make(map[string]int), make(map[string]int), make(map[string]int)
	for _, shards := range v.shards {
		for _, s := range shards {
			for _, r := range s.Replicas {
				replicas[r.NodeId]++
				if r.Id == s.Leader {
					leads[r.NodeId]++
				}
				if slices.Contains(s.InSync, r.Id) {
					inSync[r.NodeId]++
				}
			}
		}
	}
	return leads, replicas, inSync
}

// printStatus prints for people: the verdict first, what to do, then the figures.
func printStatus(w io.Writer, v *clusterView, h *health) error {
	r := statusJSON(v, h)
	verdict := "healthy"
	if !r.Healthy {
		verdict = "NOT HEALTHY"
	}
	fmt.Fprintf(w, "cluster %s: %s\n", r.Cluster, verdict)
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n  %-8s  %s\n", f.Severity, f.What)
		if f.Do != "" {
			fmt.Fprintf(w, "  %-8s  %s\n", "  do", f.Do)
		}
	}
	fmt.Fprintf(w, "\nmetadata: leader %s, term %d, voters %s%s\n", dash(r.Raft.Leader), r.Raft.Term, dash(strings.Join(r.Raft.Voters, ", ")), nonvoters(r.Raft.Nonvoters))
	fmt.Fprintf(w, "shards:   %d of %s; %d offline, %d below min-in-sync, %d under-replicated\n\n", r.Shards.Total,
		plural(uint64(r.Streams), "stream"), r.Shards.Offline, r.Shards.BelowMinInSync, r.Shards.UnderReplicated)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tSTATE\tANSWERS\tRAFT\tLEADS\tIN SYNC\tREPLICAS\tDISK FREE\tUP\tZONE\tADDRESS\tVERSION")
	for _, n := range r.Nodes {
		answers, free, up := "yes", size(uint64(max(0, n.DiskFree))), age(n.StartedMs)
		if !n.Reachable {
			answers, free, up = "NO", "-", "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", n.Node, n.State, answers, dash(n.RaftRole),
			n.Leads, n.InSync, n.Replicas, free, up, dash(n.Zone), dash(n.Address), dash(n.Version))
	}
	return table.Flush()
}

func nonvoters(nodes []string) string {
	if len(nodes) == 0 {
		return ""
	}
	return ", nonvoters " + strings.Join(nodes, ", ")
}

// age says how long ago, in one unit.
func age(ms int64) string {
	if ms == 0 {
		return "-"
	}
	switch d := time.Since(time.UnixMilli(ms)); {
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	default:
		return strconv.Itoa(int(d.Hours()/24)) + "d"
	}
}

func shardStateName(s pb.ShardState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "SHARD_STATE_"))
}

func replicaStateName(s pb.ReplicaState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "REPLICA_STATE_"))
}

func streamStatusName(s pb.StreamStatus) string {
	return strings.TrimPrefix(s.String(), "STREAM_STATUS_")
}

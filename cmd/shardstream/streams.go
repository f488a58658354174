package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// streamCmd is `shardstream stream`.
type streamCmd struct {
	List     streamListCmd     `cmd:"" help:"List the streams."`
	Describe streamDescribeCmd `cmd:"" help:"Show where a stream's shards are, and how far they have got."`
}

// streamListCmd is `shardstream stream list`.
type streamListCmd struct {
	brokerFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is what `shardstream stream list --help` says below its first line.
func (streamListCmd) Help() string {
	return `Examples:
  shardstream stream list
  shardstream stream list --broker 10.0.0.1:7070 --json`
}

// streamRow is a stream as --json prints it.
type streamRow struct {
	Name      string            `json:"name"`
	ID        uint64            `json:"id"`
	Status    string            `json:"status"`
	Open      int               `json:"openShards"`
	Shards    int               `json:"shards"`
	Offline   int               `json:"offlineShards"`
	Retention uint32            `json:"retentionHours"`
	Created   string            `json:"created"`
	Tags      map[string]string `json:"tags"`
}

func rowOf(meta *metadataView, s *pb.Stream) streamRow {
	r := streamRow{
		Name: s.Name, ID: s.Id, Status: streamStatusName(s.Status), Shards: len(meta.shards[s.Id]),
		Retention: s.RetentionHours, Created: timeText(s.CreatedMs), Tags: s.Tags,
	}
	if r.Tags == nil {
		r.Tags = map[string]string{}
	}
	for _, shard := range meta.shards[s.Id] {
		if shard.State == pb.ShardState_SHARD_STATE_OPEN {
			r.Open++
		}
		if shard.Leader == 0 && shard.State != pb.ShardState_SHARD_STATE_CREATING && len(shard.Replicas) > 0 {
			r.Offline++
		}
	}
	return r
}

// Run is the command's entry.
func (c *streamListCmd) Run(e *env) error {
	v, err := lookAtMetadata(e.ctx, c.Broker)
	if err != nil {
		return err
	}
	rows := []streamRow{}
	for _, s := range v.meta.streamsByName() {
		rows = append(rows, rowOf(&v.meta, s))
	}
	if c.JSON {
		return printJSON(e.stdout, map[string]any{"streams": rows})
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(e.stdout, "no streams")
		return err
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATUS\tOPEN SHARDS\tALL SHARDS\tOFFLINE\tRETENTION\tCREATED")
	for _, r := range rows {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%dh\t%s\n", r.Name, r.Status, r.Open, r.Shards, r.Offline, r.Retention, r.Created)
	}
	return table.Flush()
}

// streamDescribeCmd is `shardstream stream describe NAME`.
type streamDescribeCmd struct {
	brokerFlags
	Name string `arg:"" help:"The stream."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help is what `shardstream stream describe --help` says below its first line.
func (streamDescribeCmd) Help() string {
	return `START, HW and END are offsets as the shard's leader knows them: the oldest record that is kept, the high watermark
(every record below it is on all in-sync disks, and readers see no further), and the end of the leader's log. '-' means
that the leader did not answer.

Examples:
  shardstream stream describe orders
  shardstream stream describe orders --json`
}

// shardRow is a shard as --json prints it.
type shardRow struct {
	Shard     string       `json:"shard"`
	State     string       `json:"state"`
	HashRange [2]string    `json:"hashRange"`
	Parents   []string     `json:"parents"`
	Factor    uint32       `json:"replicationFactor"`
	MinInSync uint32       `json:"minInSync"`
	Leader    string       `json:"leader"` // a node; empty while offline
	Epoch     uint32       `json:"epoch"`
	InSync    []string     `json:"inSync"`
	Replicas  []replicaRow `json:"replicas"`
	// By the leader; absent if it didn't answer.
	Start *uint64 `json:"start,omitempty"`
	HW    *uint64 `json:"highWatermark,omitempty"`
	End   *uint64 `json:"end,omitempty"`
}

type replicaRow struct {
	ID     uint64 `json:"id"`
	Node   string `json:"node"`
	State  string `json:"state"`
	InSync bool   `json:"inSync"`
	// By the leader, of its followers.
	DurableEnd *uint64 `json:"durableEnd,omitempty"`
	CatchingUp bool    `json:"catchingUp,omitempty"`
	Remaining  uint64  `json:"remainingBytes,omitempty"`
	Total      uint64  `json:"totalBytes,omitempty"`
}

// Run is the command's entry.
func (c *streamDescribeCmd) Run(e *env) error {
	v, err := lookAtMetadata(e.ctx, c.Broker)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.meta.streamsByName(), func(s *pb.Stream) bool { return s.Name == c.Name })
	if i < 0 {
		return fmt.Errorf("there is no stream %s (see 'shardstream stream list')", c.Name)
	}
	s := v.meta.streamsByName()[i]
	v.askNodes(e.ctx, &pb.NodeStatusRequest{Replicas: true, StreamId: s.Id})
	rows := shardRows(v, s)
	if c.JSON {
		return printJSON(e.stdout, struct {
			streamRow
			DataKeys  []dataKeyRow `json:"dataKeys"`
			ShardList []shardRow   `json:"shardList"`
		}{rowOf(&v.meta, s), dataKeyRows(s), rows})
	}
	return c.print(e.stdout, rowOf(&v.meta, s), dataKeyRows(s), rows)
}

func shardRows(v *clusterView, s *pb.Stream) []shardRow {
	rows := []shardRow{}
	leaders := leaderReports(v)
	for _, shard := range v.meta.shards[s.Id] {
		r := shardRow{
			Shard: stream.ShardName(shard.Number), State: shardStateName(shard.State), Factor: shard.ReplicationFactor,
			MinInSync: shard.MinInSync, Epoch: shard.Epoch, InSync: []string{}, Parents: []string{}, Replicas: []replicaRow{},
		}
		if h := shard.Range; h != nil {
			r.HashRange = [2]string{
				stream.HashKey{Hi: h.StartHi, Lo: h.StartLo}.String(),
				stream.HashKey{Hi: h.EndHi, Lo: h.EndLo}.String(),
			}
		}
		for _, p := range shard.Parents {
			r.Parents = append(r.Parents, stream.ShardName(p))
		}
		report := leaders[shard.Leader]
		if report != nil {
			r.Start, r.HW, r.End = new(report.Start), new(report.HighWatermark), new(report.End)
		}
		for _, replica := range shard.Replicas {
			row := replicaRow{
				ID: replica.Id, Node: replica.NodeId, InSync: slices.Contains(shard.InSync, replica.Id),
				State: replicaStateName(replica.State),
			}
			if replica.Id == shard.Leader {
				r.Leader = replica.NodeId
			}
			if row.InSync {
				r.InSync = append(r.InSync, replica.NodeId)
			}
			for _, f := range report.GetFollowers() {
				if f.ReplicaId == replica.Id {
					row.DurableEnd = new(f.DurableEnd)
					row.CatchingUp, row.Remaining, row.Total = f.CatchingUp, f.RemainingBytes, f.TotalBytes
				}
			}
			r.Replicas = append(r.Replicas, row)
		}
		rows = append(rows, r)
	}
	return rows
}

// leaderReports gives what leaders say of their shards, by the leader's replica id.
func leaderReports(v *clusterView) map[uint64]*pb.ReplicaStatus {
	reports := make(map[uint64]*pb.ReplicaStatus)
	for n := range maps.Values(v.nodes) {
		for _, r := range n.status.GetReplicas() {
			if r.Role == pb.ReplicaRole_REPLICA_ROLE_LEADER {
				reports[r.GetReplica().GetReplicaId()] = r
			}
		}
	}
	return reports
}

func (c *streamDescribeCmd) print(w io.Writer, s streamRow, keys []dataKeyRow, rows []shardRow) error {
	fmt.Fprintf(w, "stream %s (id %d): %s, %d of %s open, retention %d h, created %s\n\n", s.Name, s.ID, s.Status,
		s.Open, plural(uint64(s.Shards), "shard"), s.Retention, s.Created)
	printDataKeys(w, keys)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SHARD\tSTATE\tLEADER\tEPOCH\tIN SYNC\tOTHERS\tSTART\tHW\tEND")
	for _, r := range rows {
		leader := r.Leader
		if leader == "" && len(r.Replicas) > 0 {
			leader = "OFFLINE"
		}
		var others []string
		for _, replica := range r.Replicas {
			switch {
			case replica.CatchingUp:
				others = append(others, fmt.Sprintf("%s (%s left)", replica.Node, size(replica.Remaining)))
			case !replica.InSync:
				others = append(others, fmt.Sprintf("%s (%s)", replica.Node, replica.State))
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", r.Shard, r.State, dash(leader), r.Epoch,
			dash(strings.Join(r.InSync, ",")), dash(strings.Join(others, ", ")), offset(r.Start), offset(r.HW), offset(r.End))
	}
	return table.Flush()
}

func offset(o *uint64) string {
	if o == nil {
		return "-"
	}
	return fmt.Sprint(*o)
}

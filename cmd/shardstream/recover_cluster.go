package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	pb "shardstream/proto/shardstream/v1"
)

// clusterRecovery is what --json prints for a cluster of several brokers.
type clusterRecovery struct {
	Silent    []string     `json:"silent"` // brokers that did not answer: their disks may have more
	Shards    []*shardLoss `json:"shards"`
	Accepting uint64       `json:"acceptLoss"` // what --accept-loss must say
	Recovered []string     `json:"recovered"`
}

// recoverCluster looks at all copies of the shards that are offline for good,
// and, once the operator has said how much may be lost, lets each go on with its
// best one.
func (c *recoverCmd) recoverCluster(e *env, v *clusterView) error {
	if c.Yes {
		return usagef("--yes is for a single node; in a cluster say how many records may be lost, with --accept-loss")
	}
	for _, node := range c.Gone {
		if !slices.ContainsFunc(v.meta.brokers, func(b *pb.Broker) bool { return b.NodeId == node }) {
			return usagef("--gone %s: there is no such broker", node)
		}
	}
	v.askNodes(e.ctx, &pb.NodeStatusRequest{Replicas: true, OnDisk: true})
	report := clusterRecovery{Silent: []string{}, Recovered: []string{}}
	damage := make(map[string][]*pb.Damage)
	for _, b := range v.meta.brokers {
		if b.State == pb.BrokerState_BROKER_STATE_GONE {
			continue
		}
		list, err := c.listDamage(e.ctx, b.GrpcAddress)
		if v.nodes[b.NodeId].status == nil || err != nil {
			report.Silent = append(report.Silent, b.NodeId)
			continue
		}
		damage[b.NodeId] = list
	}
	report.Shards = recoverPlan(v, damage, c.Gone)
	var ready []*shardLoss
	for _, l := range report.Shards {
		if len(l.Waits) == 0 && len(l.Copies) > 0 {
			ready = append(ready, l)
			report.Accepting += l.Most
		}
	}
	if !c.JSON {
		if err := printLosses(e.stdout, &report); err != nil {
			return err
		}
	}
	if len(ready) == 0 || c.JSON && c.AcceptLoss == nil {
		return c.printCluster(e.stdout, report)
	}
	if err := c.confirmLoss(e, report.Accepting); err != nil {
		return err
	}
	acts := actFlags{brokerFlags: brokerFlags{Broker: c.Broker}}
	for _, l := range ready {
		name := l.Stream + "/" + l.Shard
		if _, err := acts.act(e.ctx, l.command(c.name(), c.Reason)); err != nil {
			return fmt.Errorf("%s: %w (recovered before it: %d of %d)", name, err, len(report.Recovered), len(ready))
		}
		report.Recovered = append(report.Recovered, name)
		if !c.JSON {
			fmt.Fprintf(e.stdout, "%s goes on with the copy of broker %s, from offset %d\n", name, l.Copies[0].Node, l.Copies[0].End)
		}
	}
	if !c.JSON {
		fmt.Fprintln(e.stdout, "Puts are taken once enough other brokers have caught up. Former copies are kept below trash/ of their data directories.\n"+
			"Readers that had got past these offsets must begin again at them.")
	}
	return c.printCluster(e.stdout, report)
}

func (c *recoverCmd) printCluster(w io.Writer, report clusterRecovery) error {
	if c.JSON {
		return printJSON(w, report)
	}
	return nil
}

func (c *recoverCmd) listDamage(ctx context.Context, address string) ([]*pb.Damage, error) {
	conn, err := dialBroker(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	list, err := pb.NewClusterClient(conn).ListDamage(ctx, &pb.ListDamageRequest{})
	return list.GetDamage(), err
}

// confirmLoss asks, or compares with --accept-loss.
func (c *recoverCmd) confirmLoss(e *env, records uint64) error {
	switch {
	case c.AcceptLoss == nil:
		return confirm(e, records)
	case *c.AcceptLoss != records:
		return fmt.Errorf("--accept-loss %d, but up to %s would be lost; nothing was changed", *c.AcceptLoss, plural(records, "record"))
	}
	return nil
}

// printLosses shows what there is, for people.
func printLosses(w io.Writer, report *clusterRecovery) error {
	if len(report.Shards) == 0 {
		_, err := fmt.Fprintln(w, "no shard needs to be recovered: each has a leader")
		return err
	}
	for _, l := range report.Shards {
		fmt.Fprintf(w, "%s/%s is offline", l.Stream, l.Shard)
		switch {
		case len(l.Waits) > 0:
			fmt.Fprintf(w, ", and is left alone: every record is on broker %s, which is down. Start it; or if its disk is gone for good, say --gone %s\n",
				strings.Join(l.Waits, " and on broker "), strings.Join(l.Waits, " --gone "))
		case len(l.Copies) == 0:
			fmt.Fprintln(w, ", and no copy of it is left on any disk that answers")
		default:
			fmt.Fprintf(w, ": %s known to be lost with the best copy, and at most %s that any copy tells of\n", plural(l.Known, "record"), plural(l.Most, "record"))
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for i, c := range l.Copies {
			mark := ""
			if i == 0 && len(l.Waits) == 0 {
				mark = "best:"
			}
			state := c.State
			if state == "" {
				state = "taken off before"
			}
			fmt.Fprintf(table, "  %s\tbroker %s\t%s\toffsets %d to %d\thigh watermark %d\tepoch %d\tlast record %s\t%s damaged\n",
				mark, c.Node, state, c.Start, c.End, c.HW, c.LastEpoch, orUnknown(c.Last), decimal(int64(c.damagedRecords())))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if len(report.Silent) > 0 {
		fmt.Fprintf(w, "No answer from broker %s: what only that disk has would be lost too.\n", strings.Join(report.Silent, ", "))
	}
	if slices.ContainsFunc(report.Shards, func(l *shardLoss) bool { return len(l.Waits) == 0 && len(l.Copies) > 0 }) {
		fmt.Fprintln(w, "Records that arrived after the last one of a best copy may have been acknowledged; what only lost disks had can't be counted.")
	}
	return nil
}

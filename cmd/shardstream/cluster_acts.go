package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "shardstream/proto/shardstream/v1"
)

// actTimeout bounds one act: it must live through the election of another leader
// of the metadata.
const actTimeout = 15 * time.Second

// actFlags are those of every act on a cluster.
type actFlags struct {
	brokerFlags
	JSON bool `name:"json" help:"Print JSON: one object in a line, with --wait one per look."`
}

// waitFlags are those of acts that take their time.
type waitFlags struct {
	Wait     bool          `env:"-" help:"Stay until it is done, and show how far it has got. Ctrl-C ends the looking, not the act."`
	Interval time.Duration `default:"1s" help:"How often to look with --wait (${default})."`
}

func (f *waitFlags) check() error {
	if f.Interval <= 0 {
		return usagef("--interval %s: want more than nothing", f.Interval)
	}
	return nil
}

// drainCmd is `shardstream cluster drain NODE`.
type drainCmd struct {
	actFlags
	waitFlags
	Node string `arg:"" help:"The broker, by its node id."`
}

// Help is what `shardstream cluster drain --help` says below its first line.
func (drainCmd) Help() string {
	return `The broker goes on running. It gets nothing new, gives its leaderships away, and its replicas are copied to other
brokers before they leave it, so that every shard keeps its full number of copies all the time. It stays drained, also
when it restarts, until it is undrained or removed.
Refused if too few brokers would be left for the shards' copies.

Examples:
  shardstream cluster drain node-4 --wait && shardstream cluster remove node-4`
}

// Run is the command's entry.
func (c *drainCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	index, err := c.act(e.ctx, &pb.Command{Op: &pb.Command_DrainBroker{DrainBroker: &pb.DrainBroker{NodeId: c.Node}}})
	if err != nil {
		return err
	}
	w := &moveWatch{
		actFlags: c.actFlags, waitFlags: c.waitFlags, index: index,
		look:    func(v *clusterView) movement { return drainMovement(v, c.Node) },
		started: fmt.Sprintf("broker %s is being drained", c.Node),
		done:    fmt.Sprintf("broker %s is drained: it holds nothing any more; take it out with: shardstream cluster remove %s", c.Node, c.Node),
	}
	return w.run(e)
}

// undrainCmd is `shardstream cluster undrain NODE`.
type undrainCmd struct {
	actFlags
	Node string `arg:"" help:"The broker, by its node id."`
}

// Help is what `shardstream cluster undrain --help` says below its first line.
func (undrainCmd) Help() string {
	return `Takes a drain back, whether it has ended or not. What has moved away stays there: see shardstream cluster rebalance.`
}

// Run is the command's entry.
func (c *undrainCmd) Run(e *env) error {
	return c.simple(e, &pb.Command{Op: &pb.Command_UndrainBroker{UndrainBroker: &pb.UndrainBroker{NodeId: c.Node}}},
		fmt.Sprintf("broker %s is in use again", c.Node))
}

// removeCmd is `shardstream cluster remove NODE`.
type removeCmd struct {
	actFlags
	Node string `arg:"" help:"The broker, by its node id."`
}

// Help is what `shardstream cluster remove --help` says below its first line.
func (removeCmd) Help() string {
	return `Takes a broker out of the cluster for good. Refused while it holds any replica: drain it first. A broker that is
dead is drained the same way; its replicas are then copied from the others.
Its process can be stopped before or after, and its data directory is of no use any more.

Examples:
  shardstream cluster remove node-4`
}

// Run is the command's entry.
func (c *removeCmd) Run(e *env) error {
	return c.simple(e, &pb.Command{Op: &pb.Command_RemoveBroker{RemoveBroker: &pb.RemoveBroker{NodeId: c.Node}}},
		fmt.Sprintf("broker %s is removed: stop its process, if it runs, and delete its data directory", c.Node))
}

// rebalanceCmd is `shardstream cluster rebalance`.
type rebalanceCmd struct {
	actFlags
	waitFlags
	Stop bool `env:"-" help:"Stop a rebalance instead: what is under way is given up, what has moved stays."`
}

// Help is what `shardstream cluster rebalance --help` says below its first line.
func (rebalanceCmd) Help() string {
	return `Evens out replicas and leaderships over the brokers now, zones first. Leaderships even out by themselves after a
while; replicas move only by this command, since that copies data. New copies are filled at a bounded rate, and old ones
leave when the new ones are in sync.

Examples:
  shardstream cluster rebalance --wait
  shardstream cluster rebalance --stop`
}

// Run is the command's entry.
func (c *rebalanceCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	cmd := &pb.Command{Op: &pb.Command_Rebalance{Rebalance: &pb.Rebalance{End: c.Stop}}}
	if c.Stop {
		return c.simple(e, cmd, "rebalancing is stopped")
	}
	index, err := c.act(e.ctx, cmd)
	if err != nil {
		return err
	}
	w := &moveWatch{
		actFlags: c.actFlags, waitFlags: c.waitFlags, index: index,
		look: rebalanceMovement, started: "the cluster is being rebalanced", done: "the cluster is balanced",
	}
	return w.run(e)
}

// simple is an act that is done at once.
func (f *actFlags) simple(e *env, cmd *pb.Command, said string) error {
	if _, err := f.act(e.ctx, cmd); err != nil {
		return err
	}
	if f.JSON {
		return printLine(e.stdout, map[string]any{"done": true, "said": said})
	}
	_, err := fmt.Fprintln(e.stdout, said)
	return err
}

// act has a command applied by the first broker that answers, and gives the
// index of the metadata that has it. A refusal is an error in one line. The acts
// are wishes, not steps: it does no harm that one is applied twice.
func (f *actFlags) act(ctx context.Context, cmd *pb.Command) (index uint64, err error) {
	var errs []error
	for _, address := range f.Broker {
		result, err := proposeAt(ctx, address, cmd)
		switch {
		case err == nil && result.GetError() != pb.ErrorKind_ERROR_KIND_NONE:
			return 0, fmt.Errorf("%s; nothing was changed", result.GetDetail())
		case err == nil:
			return result.GetIndex(), nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		errs = append(errs, brokerError(address, err))
	}
	if len(errs) == 0 {
		return 0, usagef("--broker: no broker is named")
	}
	return 0, oneLine{errors.Join(errs...)}
}

func proposeAt(ctx context.Context, address string, cmd *pb.Command) (*pb.CommandResult, error) {
	conn, err := dialBroker(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, actTimeout)
	defer cancel()
	answer, err := pb.NewClusterClient(conn).Propose(ctx, &pb.ProposeRequest{Command: cmd})
	return answer.GetResult(), err
}

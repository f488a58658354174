package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// recoverCmd is `shardstream cluster recover`: the only way to accept loss.
type recoverCmd struct {
	brokerFlags
	AcceptLoss *uint64       `env:"-" placeholder:"RECORDS" help:"In a cluster, instead of the confirmation: how many records may be lost, exactly as listed."`
	Gone       []string      `env:"-" placeholder:"NODE" help:"In a cluster: brokers whose disks are gone for good, repeatable."`
	Yes        bool          `env:"-" help:"On a single node: do not ask for confirmation."`
	JSON       bool          `name:"json" help:"Print JSON. Without --yes or --accept-loss it only lists."`
	Reason     string        `env:"-" placeholder:"TEXT" help:"Why, for the record."`
	By         string        `placeholder:"NAME" help:"Who accepts the loss, for the record (default: user and host)."`
	Timeout    time.Duration `default:"30s" help:"How long the broker may take (${default})."`
}

// Help is what `shardstream cluster recover --help` says below its first line.
func (recoverCmd) Help() string {
	return `On a single node: lists the ranges of records that failed their checksums, and, once you have typed their number,
gives them up: reads pass over the hole from then on, and the shard is served again.

In a cluster, damage is repaired from other copies by itself. Only a shard whose in-sync copies are all lost or damaged
needs this: it shows what each remaining copy has, which is the best, and what is known to be lost, and, once you have
typed how many records may be lost, lets the shard go on with the best copy. The other brokers copy it anew; what they
had is kept below trash/ of their data directories.

What is given up does not come back, so keep a copy of the disks if the data matters. The metadata keeps a record.

Examples:
  shardstream cluster recover
  shardstream cluster recover --json
  shardstream cluster recover --broker 10.0.0.5:7070 --yes --by ops
  shardstream cluster recover --gone node-2 --accept-loss 120 --by ops --reason "rack 7 burnt"`
}

// Run is the command's entry.
func (c *recoverCmd) Run(e *env) error {
	v, err := lookAtMetadata(e.ctx, c.Broker)
	if err != nil {
		return err
	}
	if len(v.meta.brokers) > 1 {
		return c.recoverCluster(e, v)
	}
	if c.AcceptLoss != nil || len(c.Gone) > 0 {
		return usagef("--accept-loss and --gone are for a cluster, and this is a single node")
	}
	conn, err := dialBroker(v.askedAt)
	if err != nil {
		return err
	}
	defer conn.Close()
	return c.recover(e, v.askedAt, pb.NewClusterClient(conn))
}

// recover lists, asks and accepts.
func (c *recoverCmd) recover(e *env, address string, client pb.ClusterClient) error {
	ctx, cancel := context.WithTimeout(e.ctx, c.Timeout)
	defer cancel()
	list, err := client.ListDamage(ctx, &pb.ListDamageRequest{})
	if err != nil {
		return brokerError(address, err)
	}
	found := list.GetDamage()
	report := recoverReport{ScanComplete: list.GetScanComplete(), Damage: damageJSON(found), Accepted: []damagedRange{}}
	if !c.JSON {
		printDamage(e.stdout, "", found)
		if !report.ScanComplete {
			fmt.Fprintln(e.stdout, "The broker has not read all of its files yet: there may be more.")
		}
	}
	if len(found) == 0 || c.JSON && !c.Yes {
		return c.printJSON(e.stdout, report)
	}
	if !c.Yes {
		if err := confirm(e, damagedRecords(found)); err != nil {
			return err
		}
	}
	accepting, cancel := context.WithTimeout(e.ctx, c.Timeout) // reading the answer took its own time
	defer cancel()
	answer, err := client.AcceptDamage(accepting, &pb.AcceptDamageRequest{By: c.name(), Damage: found})
	if err != nil {
		return brokerError(address, err)
	}
	if c.JSON {
		report.Accepted = damageJSON(answer.GetAccepted())
		return c.printJSON(e.stdout, report)
	}
	fmt.Fprintln(e.stdout, "Given up:")
	printDamage(e.stdout, "  ", answer.GetAccepted())
	return nil
}

// confirm asks for the number of records, which nobody types by mistake.
func confirm(e *env, records uint64) error {
	fmt.Fprintf(e.stdout, "\nThis gives up %s for good. Type %d to confirm: ", plural(records, "record"), records)
	answer := make(chan string, 1)
	go func() { // ends with the process: a read from a terminal can't be interrupted
		line, _ := bufio.NewReader(e.stdin).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case <-e.ctx.Done():
		fmt.Fprintln(e.stdout)
		return fmt.Errorf("not confirmed, nothing was changed")
	case line := <-answer:
		if line != strconv.FormatUint(records, 10) {
			return fmt.Errorf("not confirmed, nothing was changed")
		}
		return nil
	}
}

// name says who accepts the loss.
func (c *recoverCmd) name() string {
	if c.By != "" {
		return c.By
	}
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// recoverReport is what --json prints.
type recoverReport struct {
	ScanComplete bool           `json:"scanComplete"`
	Damage       []damagedRange `json:"damage"`
	Accepted     []damagedRange `json:"accepted"`
}

// damagedRange is one damaged range as --json prints it, here and in log verify.
type damagedRange struct {
	Stream   string `json:"stream,omitempty"` // its name, if known
	StreamID uint64 `json:"streamId"`
	Shard    string `json:"shard"`
	Replica  uint64 `json:"replica"`
	Start    uint64 `json:"start"` // first offset
	End      uint64 `json:"end"`   // after the last offset
	Records  uint64 `json:"records"`
	After    string `json:"after,omitempty"`  // arrival of the last good record before it
	Before   string `json:"before,omitempty"` // arrival of the first good record behind it
	File     string `json:"file"`
	Position int64  `json:"position"` // in the file, bytes
	Reason   string `json:"reason"`
}

func damageJSON(damage []*pb.Damage) []damagedRange {
	ranges := []damagedRange{}
	for _, d := range damage {
		ranges = append(ranges, damagedRange{
			Stream: d.GetStreamName(), StreamID: d.GetReplica().GetStreamId(),
			Shard: stream.ShardName(d.GetReplica().GetShard()), Replica: d.GetReplica().GetReplicaId(),
			Start: d.GetStart(), End: d.GetEnd(), Records: records(d.GetStart(), d.GetEnd()),
			After: timeText(d.GetAfterMs()), Before: timeText(d.GetBeforeMs()),
			File: d.GetFile(), Position: d.GetFileOffset(), Reason: d.GetReason(),
		})
	}
	return ranges
}

func (c *recoverCmd) printJSON(w io.Writer, report recoverReport) error {
	if !c.JSON {
		return nil
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

// printDamage prints a table for people, each line behind indent.
func printDamage(w io.Writer, indent string, damage []*pb.Damage) {
	printRanges(w, indent, damageJSON(damage))
}

func printRanges(w io.Writer, indent string, ranges []damagedRange) {
	if len(ranges) == 0 {
		fmt.Fprintln(w, indent+"no damage found")
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, indent+"STREAM\tSHARD\tOFFSETS\tRECORDS\tARRIVED BETWEEN\tFILE")
	for _, d := range ranges {
		name := d.Stream
		if name == "" {
			name = fmt.Sprintf("(id %d)", d.StreamID)
		}
		fmt.Fprintf(table, "%s%s\t%s\t%d-%d\t%s\t%s .. %s\t%s at %d: %s\n", indent, name, d.Shard, d.Start, max(d.End, d.Start+1)-1,
			decimal(int64(d.Records)), orUnknown(d.After), orUnknown(d.Before), d.File, d.Position, d.Reason)
	}
	_ = table.Flush() // stdout that is gone shows in the next write
}

func damagedRecords(damage []*pb.Damage) (n uint64) {
	for _, d := range damage {
		n += records(d.GetStart(), d.GetEnd())
	}
	return n
}

// records gives the size of an offset range; one whose end is unknown has none.
func records(start, end uint64) uint64 {
	if end < start {
		return 0
	}
	return end - start
}

func timeText(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return s
}

func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "ch") {
		return decimal(int64(n)) + " " + noun + "es"
	}
	return decimal(int64(n)) + " " + noun + "s"
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"shardstream/test/history"
)

// TestReshard splits, merges and resizes streams under the load of eight writers
// that never retry, while readers list and consume as the KCL does: first in
// peace, to measure how long a key waits, then with brokers killed meanwhile.
// Nothing that was acknowledged is lost, nothing is there twice, each key keeps
// its order from parents to children (I21), and at every instant the shards that
// a filter lists cover the hash space once.
func TestReshard(t *testing.T) {
	nodes := t
	c := startCluster(t, 3)
	rounds := 1
	if long() {
		rounds = 3 // a stream each: one may be resized only ten times a day
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	source := rand.New(rand.NewPCG(seed, 0))
	inPeace := 0
	for round := range rounds {
		t.Run(fmt.Sprintf("InPeace%d", round+1), func(t *testing.T) {
			r := c.startReshards(t, nodes, fmt.Sprintf("peace-%d", round), source)
			r.split(t)
			r.merge(t)
			if long() {
				r.resize(t, 8)
				r.resize(t, 5)
			} else {
				r.resize(t, 6)
			}
			r.resize(t, 3)
			r.finish(t)
			if n := r.load.failed.Load(); n > 0 {
				t.Errorf("clients saw %d errors, and nothing had failed", n)
			}
			inPeace++
		})
	}
	if inPeace != rounds {
		return // what kills would add could not be told apart
	}
	for round := range rounds {
		t.Run(fmt.Sprintf("Killed%d", round+1), func(t *testing.T) {
			r := c.startReshards(t, nodes, fmt.Sprintf("killed-%d", round), source)
			if long() {
				r.kills = true
				r.split(t)
				r.merge(t)
				r.resize(t, 8)
				r.resize(t, 5)
				r.resize(t, 3)
			} else {
				r.resize(t, 6)
				r.kills = true
				r.resize(t, 3)
			}
			r.finish(t)
		})
	}
}

const (
	reshardWriters = 8
	keysTogether   = 5 // by each writer in one request
)

// reshards is one stream that is resharded again and again under load.
type reshards struct {
	c      *cluster
	nodes  *testing.T // whose end is the brokers' end
	k      *kinesis.Client
	stream string
	source *rand.Rand
	kills  bool // whether a broker is killed during each of them

	history *history.History
	load    *load
	keys    *keyTimes
	open    int // shards
	created time.Time
	acts    int

	stop     context.CancelFunc // of the readers
	readers  sync.WaitGroup
	consumer *consumer
}

// startReshards creates a stream of four shards, with writers and readers at it.
func (c *cluster) startReshards(t, nodes *testing.T, stream string, source *rand.Rand) *reshards {
	t.Helper()
	r := &reshards{c: c, nodes: nodes, k: c.client(), stream: stream, source: source, history: history.New(), open: 4}
	c.createStream(t, stream, int32(r.open))
	ctx, cancel := context.WithCancel(context.Background())
	r.load = &load{k: c.client(), stream: stream, history: r.history, cancel: cancel, errors: make(map[string]int)}
	r.keys = newKeyTimes()
	for w := range reshardWriters {
		// One writes a key, so that nothing but its shard holds it up; the other
		// some at once, so that a request spans shards.
		for keys, pace := range map[int]time.Duration{1: 10 * time.Millisecond, keysTogether: 40 * time.Millisecond} {
			r.load.writers.Go(func() { r.write(ctx, fmt.Sprintf("w%d-of-%d", w, keys), keys, pace) })
		}
	}

	r.created = time.Now()
	reading, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.readers.Go(func() { r.list(reading, t) })
	r.consumer = newConsumer(r.k, stream)
	r.readers.Go(func() { r.consume(reading, t) })
	t.Cleanup(func() { // the load first: the consumer reads to its end
		r.load.stop()
		r.stop()
		r.readers.Wait()
	})
	return r
}

// write puts numbered values under the writer's own keys, one request after the
// other. After one whose outcome is unknown it takes new keys: the old ones may
// still get what was sent.
func (r *reshards) write(ctx context.Context, writer string, keys int, pace time.Duration) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	life := 0
	for n := 0; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		entries := make([]types.PutRecordsRequestEntry, keys)
		slots := make([]string, keys)
		for i := range entries {
			slots[i] = fmt.Sprintf("%s-%d", writer, i)
			key := fmt.Sprintf("%s-life%d", slots[i], life)
			entries[i] = types.PutRecordsRequestEntry{PartitionKey: &key, Data: fmt.Appendf(nil, "%s number %d", key, n)}
		}
		if r.load.put(context.WithoutCancel(ctx), entries) {
			r.keys.acknowledged(slots...)
		} else {
			life++
		}
	}
}

// keyTimes is when puts were acknowledged, by key. A key and its successors
// after an unknown outcome count as one.
type keyTimes struct {
	mu   sync.Mutex
	acks map[string][]time.Time
}

func newKeyTimes() *keyTimes { return &keyTimes{acks: make(map[string][]time.Time)} }

func (k *keyTimes) acknowledged(keys ...string) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		k.acks[key] = append(k.acks[key], now)
	}
}

// await waits until every key has n acknowledgements after the instant.
func (k *keyTimes) await(t *testing.T, n int, after time.Time) {
	t.Helper()
	eventually(t, func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.acks) != reshardWriters*(1+keysTogether) {
			return fmt.Errorf("%d keys were acknowledged", len(k.acks))
		}
		for key, at := range k.acks {
			if i := len(at) - n; i < 0 || !at[i].After(after) {
				return fmt.Errorf("%s: last acknowledged %s ago", key, time.Since(at[len(at)-1]))
			}
		}
		return nil
	})
}

// pauses tells the longest time between two acknowledgements of a key, of those
// times that touch the interval. It leaves out the keys whose name lacks kind.
func (k *keyTimes) pauses(kind string, from, to time.Time) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []time.Duration
	for key, at := range k.acks {
		if !strings.Contains(key, kind) {
			continue
		}
		var longest time.Duration
		for i := 1; i < len(at); i++ {
			if at[i].After(from) && at[i-1].Before(to) {
				longest = max(longest, at[i].Sub(at[i-1]))
			}
		}
		all = append(all, longest)
	}
	slices.Sort(all)
	return fmt.Sprintf("median key %s, worst %s", all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
}

// act reshards, and kills a broker meanwhile if that is asked for.
func (r *reshards) act(t *testing.T, what string, shards int, call func(context.Context) error) {
	t.Helper()
	before := r.c.awaitHealthy(t)
	quiet := time.Now()
	r.keys.await(t, 20, quiet)
	from := time.Now()
	done := make(chan error, 1)
	go func() { done <- insist(t, call) }()
	var victim *broker
	if r.kills {
		victim = r.c.nodes[r.source.IntN(len(r.c.nodes))]
		what += ", kill -9 of " + victim.name
		if before.Raft.Leader == victim.name {
			what += ", which led the metadata"
		}
		// Before, while or after the parents are sealed: the moment of the kill
		// is the point.
		time.Sleep(time.Duration(r.source.IntN(int(150 * time.Millisecond))))
		victim.kill(t)
	}
	if err := <-done; err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	// It goes on without the victim.
	eventually(t, func() error {
		out, err := r.k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &r.stream})
		if err != nil {
			return err
		}
		if s := out.StreamDescriptionSummary; s.StreamStatus != types.StreamStatusActive || int(*s.OpenShardCount) != shards {
			return fmt.Errorf("%s with %d shards, not %d", s.StreamStatus, *s.OpenShardCount, shards)
		}
		return nil
	})
	r.open = shards
	to := time.Now()
	r.keys.await(t, 1, to)
	t.Logf("%s: ACTIVE after %s; longest pauses of a key written alone: %s (%s before); of those written together: %s (%s before)",
		what, to.Sub(from).Round(time.Millisecond), r.keys.pauses("of-1", from, to), r.keys.pauses("of-1", quiet, from),
		r.keys.pauses("of-5", from, to), r.keys.pauses("of-5", quiet, from))
	if victim != nil {
		victim.start(r.nodes) // not t: it lives on after this stream
		victim.awaitReady(t)
	}
	r.acts++
}

// insist calls until there is an answer. What an attempt without one has begun,
// the next one finds under way or done.
func insist(t *testing.T, call func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := call(t.Context())
		var api smithy.APIError
		switch {
		case err == nil || t.Context().Err() != nil:
			return err
		case errors.As(err, &api) && api.ErrorFault() == smithy.FaultClient && attempt > 1:
			t.Logf("attempt %d: %v", attempt, err)
			return nil
		case errors.As(err, &api) && api.ErrorFault() == smithy.FaultClient:
			return err
		}
		t.Logf("attempt %d: %v", attempt, err)
	}
}

func (r *reshards) resize(t *testing.T, to int) {
	t.Helper()
	r.act(t, fmt.Sprintf("%d to %d", r.open, to), to, func(ctx context.Context) error {
		_, err := r.k.UpdateShardCount(ctx, &kinesis.UpdateShardCountInput{
			StreamName: &r.stream, TargetShardCount: aws.Int32(int32(to)), ScalingType: types.ScalingTypeUniformScaling,
		})
		return err
	})
}

// split splits any open shard in its middle.
func (r *reshards) split(t *testing.T) {
	t.Helper()
	open := r.latest(t)
	shard := open[r.source.IntN(len(open))]
	first, last := hashRange(shard)
	middle := new(big.Int).Add(first, last)
	middle.Rsh(middle, 1)
	r.act(t, "split of "+*shard.ShardId, r.open+1, func(ctx context.Context) error {
		_, err := r.k.SplitShard(ctx, &kinesis.SplitShardInput{
			StreamName: &r.stream, ShardToSplit: shard.ShardId, NewStartingHashKey: aws.String(middle.String()),
		})
		return err
	})
}

// merge merges any two neighbours.
func (r *reshards) merge(t *testing.T) {
	t.Helper()
	open := r.latest(t)
	i := r.source.IntN(len(open) - 1)
	r.act(t, "merge of "+*open[i].ShardId+" and "+*open[i+1].ShardId, r.open-1, func(ctx context.Context) error {
		_, err := r.k.MergeShards(ctx, &kinesis.MergeShardsInput{
			StreamName: &r.stream, ShardToMerge: open[i].ShardId, AdjacentShardToMerge: open[i+1].ShardId,
		})
		return err
	})
}

// latest gives the open shards in the order of their ranges.
func (r *reshards) latest(t *testing.T) []types.Shard {
	t.Helper()
	shards, err := r.covering(t.Context(), &types.ShardFilter{Type: types.ShardFilterTypeAtLatest})
	if err != nil {
		t.Fatal(err)
	}
	return shards
}

// holed is what covering says of a list that does not cover the hash space once.
type holed string

func (h holed) Error() string { return string(h) }

// covering lists shards that must cover the hash space, in the order of their
// ranges.
func (r *reshards) covering(ctx context.Context, filter *types.ShardFilter) ([]types.Shard, error) {
	out, err := r.k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &r.stream, ShardFilter: filter})
	if err != nil {
		return nil, err
	}
	if wrong := coverOnce(out.Shards); wrong != "" {
		text := string(filter.Type)
		if filter.Timestamp != nil {
			text += " " + filter.Timestamp.Format(time.StampMilli)
		}
		return nil, holed(text + ": " + wrong)
	}
	return out.Shards, nil
}

// coverOnce sorts shards by their ranges and tells where they leave out or share
// a part of the hash space; nothing if they don't.
func coverOnce(shards []types.Shard) string {
	slices.SortFunc(shards, func(a, b types.Shard) int {
		first, _ := hashRange(a)
		other, _ := hashRange(b)
		return first.Cmp(other)
	})
	next := new(big.Int)
	for _, s := range shards {
		first, last := hashRange(s)
		if first.Cmp(next) != 0 {
			return fmt.Sprintf("%s begins at %s, not %s", *s.ShardId, first, next)
		}
		next.Add(last, big.NewInt(1))
	}
	if next.Cmp(new(big.Int).Lsh(big.NewInt(1), 128)) != 0 {
		return fmt.Sprintf("nothing covers %s and what follows", next)
	}
	return ""
}

func hashRange(s types.Shard) (first, last *big.Int) {
	first, _ = new(big.Int).SetString(*s.HashKeyRange.StartingHashKey, 10)
	last, _ = new(big.Int).SetString(*s.HashKeyRange.EndingHashKey, 10)
	return first, last
}

// list asks for the shards by all filters that must cover the hash space, until
// ctx ends.
func (r *reshards) list(ctx context.Context, t *testing.T) {
	lists, failed := 0, map[string]int{}
	defer func() { t.Logf("%s: %d lists of shards, failed %v", r.stream, lists, failed) }()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		then, just := r.created.Add(rand.N(now.Sub(r.created)+1)), now.Add(-rand.N(20*time.Millisecond))
		for _, f := range []types.ShardFilter{
			{Type: types.ShardFilterTypeAtLatest},
			{Type: types.ShardFilterTypeAtTrimHorizon},
			{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &then},
			{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &just},
		} {
			lists++
			_, err := r.covering(context.WithoutCancel(ctx), &f)
			var hole holed
			switch {
			case errors.As(err, &hole):
				t.Error(hole)
			case err != nil:
				failed[codeOf(err)]++
			}
		}
	}
}

// at gives the ids that AT_TIMESTAMP lists for a millisecond.
func (r *reshards) at(t *testing.T, ms int64) string {
	t.Helper()
	instant := time.UnixMilli(ms)
	var shards []types.Shard
	eventually(t, func() (err error) {
		shards, err = r.covering(t.Context(), &types.ShardFilter{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &instant})
		var hole holed
		if errors.As(err, &hole) {
			t.Fatal(hole)
		}
		return err
	})
	return ids(shards)
}

func ids(shards []types.Shard) string {
	ids := make([]string, len(shards))
	for i, s := range shards {
		ids[i] = *s.ShardId
	}
	return strings.Join(ids, " ")
}

// margin keeps the instants around the last change in the past, so that none is
// taken for another.
const margin = 5 * time.Millisecond

// changes finds each millisecond until now at which AT_TIMESTAMP begins to list
// other shards, and looks at those around it too. No list comes back, since no
// id does: so where both ends are the same there is no change in between.
func (r *reshards) changes(t *testing.T) (changes []time.Time) {
	t.Helper()
	var search func(low, high int64, atLow, atHigh string)
	search = func(low, high int64, atLow, atHigh string) {
		switch {
		case atLow == atHigh:
		case high == low+1:
			for ms := low - 3; ms <= high+3; ms++ {
				r.at(t, ms)
			}
			changes = append(changes, time.UnixMilli(high))
		default:
			middle := (low + high) / 2
			at := r.at(t, middle)
			search(low, middle, atLow, at)
			search(middle, high, at, atHigh)
		}
	}
	low, high := r.created.UnixMilli(), time.Now().Add(-margin).UnixMilli()
	search(low, high, r.at(t, low), r.at(t, high))
	return changes
}

// consume reads along until ctx ends, and then what is left.
func (r *reshards) consume(ctx context.Context, t *testing.T) {
	horizon := &types.ShardFilter{Type: types.ShardFilterTypeAtTrimHorizon}
	if err := r.consumer.begin(context.WithoutCancel(ctx), horizon); err != nil {
		t.Error(err)
		return
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		last := ctx.Err() != nil
		idle, err := r.consumer.round(context.WithoutCancel(ctx))
		if err != nil {
			t.Error(err)
			return
		}
		if last && (idle || t.Failed()) {
			return
		}
		if idle {
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	}
}

// finish ends the load and compares what was read, along with it and afterwards,
// with what was acknowledged.
func (r *reshards) finish(t *testing.T) {
	t.Helper()
	r.load.stop()
	t.Logf("%s: %s", r.stream, r.load)
	r.c.awaitHealthy(t)
	r.stop()
	r.readers.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%s: read along with failed calls %v", r.stream, r.consumer.failed)
	violations := r.history.Check(r.consumer.values())
	report(t, "reading along", violations)

	again := r.readFrom(t, &types.ShardFilter{Type: types.ShardFilterTypeAtTrimHorizon})
	report(t, "reading afterwards", r.history.Check(again.values()))
	if !slices.Equal(again.sorted(), r.consumer.sorted()) {
		t.Errorf("two readers see different records: %d and %d", len(again.reads), len(r.consumer.reads))
	}
	listed, err := r.k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &r.stream})
	if err != nil {
		t.Fatal(err)
	}
	if len(listed.Shards) != len(again.known) {
		t.Errorf("read %d of %d shards", len(again.known), len(listed.Shards))
	}
	acknowledged, unknown := r.history.Counts()
	t.Logf("%s: %d records acknowledged, %d of unknown outcome, %d read from %d shards", r.stream, acknowledged, unknown, len(again.reads), len(listed.Shards))
	if len(again.reads) < acknowledged || len(again.reads) > acknowledged+unknown {
		t.Errorf("%d records were read", len(again.reads))
	}
	seesCorruption(t, r.history, again.values())

	// The last reshard may count as up to a second later than it was, since
	// sequence numbers begin with whole seconds that must rise.
	eventually(t, func() error {
		latest := ids(r.latest(t))
		if now := r.at(t, time.Now().Add(-margin).UnixMilli()); now != latest {
			return fmt.Errorf("AT_TIMESTAMP lists %s, AT_LATEST %s", now, latest)
		}
		return nil
	})
	changes := r.changes(t)
	if len(changes) < r.acts {
		t.Errorf("AT_TIMESTAMP tells of changes at %v, after %d reshards", changes, r.acts)
	}
	t.Logf("%s: the list of shards changed %d times in %d reshards", r.stream, len(changes), r.acts)
	for _, change := range changes {
		for ms := -1; ms <= 1; ms++ {
			r.checkSince(t, again.sorted(), change.Add(time.Duration(ms)*time.Millisecond))
		}
	}
}

// checkSince has one begin at an instant: of the shards that were open then it
// must get what came since, and all of their descendants.
//
// Arrival times are of the shard's leader and a shard's own times of the one that
// led the metadata. All the same no record may bear a time when its shard was
// not open: it would be missed.
func (r *reshards) checkSince(t *testing.T, all []arrival, since time.Time) {
	t.Helper()
	got := r.readFrom(t, &types.ShardFilter{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &since})
	open := strings.Fields(r.at(t, since.UnixMilli()))
	var want []arrival
	early, late := 0, 0
	for _, record := range all {
		switch before := record.arrived.Before(since); {
		case !got.known[record.ShardID]:
			if !before {
				late++
			}
			continue
		case !before:
		case slices.Contains(open, record.ShardID):
			continue
		default:
			early++
		}
		want = append(want, record)
	}
	if !slices.Equal(got.sorted(), want) {
		t.Errorf("reading from %s gives %d records, not %d", since.Format(time.StampMilli), len(got.reads), len(want))
	}
	if early+late > 0 {
		t.Errorf("by their times %d records are older than %s and in shards made since, %d younger and in shards that had ended", early, since.Format(time.StampMilli), late)
	}
}

func report(t *testing.T, who string, violations []string) {
	t.Helper()
	for i, v := range violations {
		if i == 20 {
			t.Errorf("%s: and %d more violations", who, len(violations)-i)
			break
		}
		t.Errorf("%s: %s", who, v)
	}
}

// readFrom reads a stream that nobody writes to, to its end.
func (r *reshards) readFrom(t *testing.T, filter *types.ShardFilter) *consumer {
	t.Helper()
	c := newConsumer(r.k, r.stream)
	if err := c.begin(t.Context(), filter); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		idle, err := c.round(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !idle {
			return fmt.Errorf("read %d records, failed %v", len(c.reads), c.failed)
		}
		return nil
	})
	if len(c.children) > 0 {
		t.Errorf("children whose parents never end: %v", c.children)
	}
	return c
}

// seesCorruption corrupts what was read, and has the checker see it each time:
// its silence before means something.
func seesCorruption(t *testing.T, h *history.History, reads []history.Read) {
	t.Helper()
	last := reads[len(reads)-1]
	var first int // the same key's first record: in a parent, if it has lived long enough
	for first = range reads {
		if reads[first].Key == last.Key {
			break
		}
	}
	corrupt := map[string]func([]history.Read) []history.Read{
		"lost":            func(r []history.Read) []history.Read { return r[:len(r)-1] },
		"twice":           func(r []history.Read) []history.Read { return append(r, last) },
		"before an older": func(r []history.Read) []history.Read { return slices.Insert(r[:len(r)-1], first, last) },
		"in another shard": func(r []history.Read) []history.Read {
			r[len(r)-1].ShardID = "shardId-999999999999"
			return r
		},
	}
	for what, f := range corrupt {
		if len(h.Check(f(slices.Clone(reads)))) == 0 {
			t.Errorf("the checker does not see a record %s", what)
		}
	}
}

// arrival is a record with the time of its arrival.
type arrival struct {
	history.Read
	arrived time.Time
}

// consumer reads a stream as the KCL does: it begins with the shards that a
// filter lists, and goes on with the children that an ended shard names, once
// all their parents that it reads have ended.
type consumer struct {
	k      *kinesis.Client
	stream string

	leases   []*lease
	reads    []arrival       // in the order in which they came
	known    map[string]bool // shards that were begun
	ended    map[string]bool
	children []types.ChildShard // whose parents have not all ended yet
	failed   map[string]int     // calls, by code
}

// lease is one shard that is being read, and where.
type lease struct {
	shard    string
	begin    kinesis.GetShardIteratorInput
	iterator *string // nil: to be had
}

func newConsumer(k *kinesis.Client, stream string) *consumer {
	return &consumer{k: k, stream: stream, known: map[string]bool{}, ended: map[string]bool{}, failed: map[string]int{}}
}

// begin takes the leases of the filter's shards.
func (c *consumer) begin(ctx context.Context, filter *types.ShardFilter) error {
	first, err := c.k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &c.stream, ShardFilter: filter})
	if err != nil {
		return err
	}
	for _, s := range first.Shards {
		at := types.ShardIteratorTypeTrimHorizon
		if filter.Timestamp != nil {
			at = types.ShardIteratorTypeAtTimestamp
		}
		c.take(*s.ShardId, at, filter.Timestamp)
	}
	return nil
}

func (c *consumer) take(shard string, at types.ShardIteratorType, since *time.Time) {
	c.known[shard] = true
	c.leases = append(c.leases, &lease{shard: shard, begin: kinesis.GetShardIteratorInput{
		StreamName: &c.stream, ShardId: &shard, ShardIteratorType: at, Timestamp: since,
	}})
}

// round reads once from each lease. It is idle if there was nothing to read or
// to do anywhere.
func (c *consumer) round(ctx context.Context) (idle bool, err error) {
	idle = true
	for _, l := range slices.Clone(c.leases) {
		quiet, err := c.read(ctx, l)
		if err != nil {
			var api smithy.APIError
			if errors.As(err, &api) && api.ErrorFault() == smithy.FaultClient && api.ErrorCode() != "ExpiredIteratorException" {
				return false, fmt.Errorf("reading %s: %w", l.shard, err)
			}
			// As a client after a failure: a new iterator behind what it has.
			c.failed[codeOf(err)]++
			l.iterator = nil
		}
		idle = idle && quiet
	}
	return idle, nil
}

func (c *consumer) read(ctx context.Context, l *lease) (quiet bool, err error) {
	if l.iterator == nil {
		it, err := c.k.GetShardIterator(ctx, &l.begin)
		if err != nil {
			return false, err
		}
		l.iterator = it.ShardIterator
	}
	out, err := c.k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: l.iterator})
	if err != nil {
		return false, err
	}
	for _, r := range out.Records {
		c.reads = append(c.reads, arrival{
			history.Read{Place: history.Place{ShardID: l.shard, SequenceNumber: *r.SequenceNumber}, Key: *r.PartitionKey, Value: string(r.Data)},
			*r.ApproximateArrivalTimestamp,
		})
		l.begin.ShardIteratorType, l.begin.StartingSequenceNumber, l.begin.Timestamp = types.ShardIteratorTypeAfterSequenceNumber, r.SequenceNumber, nil
	}
	l.iterator = out.NextShardIterator
	if (l.iterator == nil) != (len(out.ChildShards) > 0) {
		return false, fmt.Errorf("%s: next iterator %v, children %v", l.shard, l.iterator, out.ChildShards)
	}
	if l.iterator != nil {
		return len(out.Records) == 0 && *out.MillisBehindLatest == 0, nil
	}
	c.leases = slices.DeleteFunc(c.leases, func(other *lease) bool { return other == l })
	c.ended[l.shard] = true
	c.children = slices.DeleteFunc(append(c.children, out.ChildShards...), func(child types.ChildShard) bool {
		for _, parent := range child.ParentShards {
			if !c.ended[parent] {
				return false
			}
		}
		if !c.known[*child.ShardId] {
			c.take(*child.ShardId, types.ShardIteratorTypeTrimHorizon, nil)
		}
		return true
	})
	return false, nil
}

// values gives the records in the order in which they came.
func (c *consumer) values() []history.Read {
	reads := make([]history.Read, len(c.reads))
	for i, r := range c.reads {
		reads[i] = r.Read
	}
	return reads
}

// sorted gives the records shard by shard, each as it came.
func (c *consumer) sorted() []arrival {
	byShard := map[string][]arrival{}
	for _, r := range c.reads {
		byShard[r.ShardID] = append(byShard[r.ShardID], r)
	}
	var all []arrival
	for _, shard := range slices.Sorted(maps.Keys(byShard)) {
		all = append(all, byShard[shard]...)
	}
	return all
}

// TestCoverOnce has the judge of shard lists see lists that are wrong.
func TestCoverOnce(t *testing.T) {
	const end = "340282366920938463463374607431768211455"
	shard := func(id, first, last string) types.Shard {
		return types.Shard{ShardId: &id, HashKeyRange: &types.HashKeyRange{StartingHashKey: &first, EndingHashKey: &last}}
	}
	for name, tt := range map[string]struct {
		shards []types.Shard
		want   string
	}{
		"whole, unsorted": {[]types.Shard{shard("b", "8", end), shard("a", "0", "7")}, ""},
		"none":            {nil, "nothing covers 0"},
		"no begin":        {[]types.Shard{shard("a", "1", end)}, "a begins at 1, not 0"},
		"no end":          {[]types.Shard{shard("a", "0", end[:len(end)-1]+"4")}, "nothing covers " + end},
		"a hole":          {[]types.Shard{shard("a", "0", "7"), shard("b", "9", end)}, "b begins at 9, not 8"},
		"shared":          {[]types.Shard{shard("a", "0", "8"), shard("b", "8", end)}, "b begins at 8, not 9"},
		"twice":           {[]types.Shard{shard("a", "0", end), shard("b", "0", end)}, "b begins at 0, not 3402"},
		"parent and half": {[]types.Shard{shard("a", "0", end), shard("b", "8", end)}, "b begins at 8, not 3402"},
	} {
		if got := coverOnce(tt.shards); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, not %q", name, got, tt.want)
		}
	}
}

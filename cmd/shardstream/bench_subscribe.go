package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"shardstream/cmd/shardstream/internal/benchclient"
)

type benchSubscribe struct {
	benchTarget
	Consumers   int           `default:"20" help:"Consumers to register, each of which subscribes to every shard (${default})."`
	HTTP2       bool          `name:"http2" help:"Subscribe over HTTP/2, in place of a connection of HTTP/1.1 for each subscription."`
	Connections int           `short:"c" default:"4" help:"Connections that put (${default})."`
	Duration    time.Duration `short:"d" default:"10s" help:"How long to put (${default})."`
	Size        int           `default:"1024" help:"Size of a record's data in bytes, at least 30 (${default})."`
	Keys        int           `default:"1000" help:"Partition keys of each connection (${default})."`
	Rate        float64       `default:"100" placeholder:"RECORDS" help:"Records a second over all connections (${default}); as many as possible if 0."`
}

func (c *benchSubscribe) Run(e *env) error {
	l := &benchLoad{c.Connections, c.Duration, c.Size, c.Keys, c.Rate, false}
	if err := l.check(); err != nil {
		return err
	}
	if c.Consumers < 1 {
		return usagef("--consumers %d: want at least 1", c.Consumers)
	}
	target, s, done, err := c.open(e.ctx)
	if err != nil {
		return err
	}
	defer done()
	load := newLoad(target, c.StreamName, l, 0)
	subscribers, err := startSubscribers(e.ctx, target, s, load, c.Consumers, c.HTTP2)
	if err != nil {
		return err
	}
	defer subscribers.deregister(e.ctx)
	progress := startProgress(e.stderr, !c.JSON, load.progress("subscribe"))
	load.run(e.ctx)
	subscribers.finish(load.acknowledged.Load() * int64(c.Consumers))
	progress.stop()
	result := load.result("subscribe", &c.benchTarget, s)
	subscribers.report(result)
	if err := result.print(e.stdout, c.JSON); err != nil {
		return err
	}
	if want := result.Records * int64(c.Consumers); result.EndToEnd.Records != want {
		return fmt.Errorf("%s records arrived, not %s: each of %s once at each consumer", decimal(result.EndToEnd.Records), decimal(want), decimal(result.Records))
	}
	return result.verdict()
}

// subscribers are consumers of a stream, each subscribed to every shard.
type subscribers struct {
	load      *load
	stream    *benchStream
	client    *benchclient.EventClient
	consumers []string // ARNs
	stop      context.CancelFunc
	wg        sync.WaitGroup
	all       []*subscriber
	count     atomic.Int64
	changed   chan struct{} // signalled when count has grown
}

// subscriber is one subscription. Only its goroutine touches it.
type subscriber struct {
	consumer, shard string
	latency         *hdrhistogram.Histogram // microseconds
	next            string                  // continuation
	last            string                  // greatest sequence number so far
	errors          map[string]int64
}

// startSubscribers registers the consumers, and returns when all subscriptions
// have begun: what is put from then on will arrive.
func startSubscribers(ctx context.Context, target *benchclient.Target, s *benchStream, l *load, consumers int, http2 bool) (_ *subscribers, err error) {
	a := &subscribers{load: l, stream: s, client: target.NewEventClient(http2), changed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			a.deregister(ctx)
		}
	}()
	running, stop := context.WithCancel(ctx)
	a.stop = stop
	for i := range consumers {
		if err := a.register(ctx, fmt.Sprintf("shardstream-bench-%d", i)); err != nil {
			return nil, err
		}
	}
	failed := make(chan error, 1)
	var begun sync.WaitGroup
	for _, consumer := range a.consumers {
		for _, shard := range s.shards {
			r := &subscriber{consumer: consumer, shard: shard, latency: newLatency(), errors: map[string]int64{}}
			a.all = append(a.all, r)
			begun.Add(1)
			events, err := a.subscribe(running, r)
			if err != nil {
				return nil, err
			}
			a.wg.Go(func() { a.read(running, r, events, begun.Done, failed) })
		}
	}
	ready := make(chan struct{})
	a.wg.Go(func() { // ends with the readers at the latest
		begun.Wait()
		close(ready)
	})
	select {
	case <-ready:
		return a, nil
	case err := <-failed:
		return nil, err
	}
}

// register registers a consumer and waits until it is ACTIVE.
func (a *subscribers) register(ctx context.Context, name string) error {
	var summary struct {
		StreamDescriptionSummary struct{ StreamARN string }
	}
	if err := a.stream.call(ctx, "DescribeStreamSummary", map[string]any{"StreamName": a.stream.name}, &summary); err != nil {
		return err
	}
	var registered struct{ Consumer struct{ ConsumerARN string } }
	in := map[string]any{"StreamARN": summary.StreamDescriptionSummary.StreamARN, "ConsumerName": name}
	if err := a.stream.call(ctx, "RegisterStreamConsumer", in, &registered); err != nil {
		return err
	}
	arn := registered.Consumer.ConsumerARN
	a.consumers = append(a.consumers, arn)
	for {
		var out struct {
			ConsumerDescription struct{ ConsumerStatus string }
		}
		if err := a.stream.call(ctx, "DescribeStreamConsumer", map[string]any{"ConsumerARN": arn}, &out); err != nil {
			return err
		}
		if out.ConsumerDescription.ConsumerStatus == "ACTIVE" {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// deregister ends everything and takes the consumers away.
func (a *subscribers) deregister(ctx context.Context) {
	if a.stop != nil {
		a.stop()
	}
	a.wg.Wait()
	a.client.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, arn := range a.consumers {
		_ = a.stream.call(ctx, "DeregisterStreamConsumer", map[string]any{"ConsumerARN": arn}, nil) // as far as it goes
	}
}

func (a *subscribers) subscribe(ctx context.Context, r *subscriber) (*benchclient.Events, error) {
	position := map[string]any{"Type": "LATEST"}
	if r.next != "" {
		position = map[string]any{"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": r.next}
	}
	body, err := json.Marshal(map[string]any{"ConsumerARN": r.consumer, "ShardId": r.shard, "StartingPosition": position})
	if err != nil {
		return nil, err
	}
	return a.client.Subscribe(ctx, body)
}

// read reads events until ctx ends, over one subscription after the other. begun
// is called with the first event.
func (a *subscribers) read(ctx context.Context, r *subscriber, events *benchclient.Events, begun func(), failed chan<- error) {
	begin := sync.OnceFunc(begun)
	defer begin()
	for {
		err := a.readOne(r, events, begin)
		events.Close()
		for ctx.Err() == nil {
			if err != io.EOF {
				select {
				case failed <- err: // while they are being started, that is the end
				default:
				}
				r.errors["(subscription) "+err.Error()]++
				_ = pause(ctx, time.Second) // the loop sees when ctx has ended
			}
			if events, err = a.subscribe(ctx, r); err == nil {
				break
			}
		}
		if ctx.Err() != nil {
			if err == nil {
				events.Close()
			}
			return
		}
	}
}

func (a *subscribers) readOne(r *subscriber, events *benchclient.Events, begin func()) error {
	for {
		payload, err := events.Next()
		if err != nil {
			return err
		}
		begin()
		arrived := int64(0)
		got, ok := benchclient.ScanGetRecords(payload, func(g benchclient.Got) {
			stamp, _, ours := a.load.format.Read(g.Data)
			if !ours {
				return
			}
			if number := string(g.SequenceNumber); lessSequence(r.last, number) {
				r.last = number
			} else {
				r.errors["(record twice or out of order)"]++
			}
			arrived++
			since := time.Since(a.load.began) - time.Duration(stamp.Nanos)
			_ = r.latency.RecordValue(max(1, since.Microseconds()))
		})
		if !ok {
			return fmt.Errorf("an event that can't be read: %.80q", payload)
		}
		r.next = string(got.Next)
		if arrived > 0 {
			a.count.Add(arrived)
			select {
			case a.changed <- struct{}{}:
			default:
			}
		}
	}
}

// finish waits until want records have arrived, or none for five seconds, and
// then ends the subscriptions.
func (a *subscribers) finish(want int64) {
	awaitArrivals(&a.count, a.changed, want)
	a.stop()
	a.wg.Wait()
}

func (a *subscribers) report(r *benchResult) {
	latency := newLatency()
	for _, s := range a.all {
		latency.Merge(s.latency)
		for code, n := range s.errors {
			r.Errors[code] += n
		}
	}
	r.Subscriptions = len(a.all)
	r.EndToEnd = &benchArrivals{Records: a.count.Load(), Latency: summarize(latency)}
}

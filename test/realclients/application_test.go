package realclients

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"shardstream/test/history"
)

// application is a consumer of one or several processes, and what they have said:
// the events of test/clients/java's Worker.java.
type application struct {
	name       string
	workers    map[string]*process // those that live; the test's goroutine only
	tellsEnds  bool                // whether it says which shards have ended
	valuesOnly bool                // whether it knows the records' data and nothing else

	// The workers' events, from a goroutine each.
	mu         sync.Mutex
	reads      map[history.Place]history.Read // what was processed, each once
	deliveries int                            // records processed, repeats included
	perWorker  map[string]int                 // of the deliveries
	ended      map[string]string              // the worker that reached a shard's end
	strange    []string                       // lines that mean nothing
	values     map[string]bool                // what was processed and has no place yet
}

func newApplication() *application {
	return &application{
		name: "application", workers: map[string]*process{}, tellsEnds: true, reads: map[history.Place]history.Read{},
		perWorker: map[string]int{}, ended: map[string]string{}, values: map[string]bool{},
	}
}

// startWorker starts a worker of the program Worker of a Java module.
func (a *application) startWorker(t *testing.T, worker, module string, env []string, options ...string) {
	t.Helper()
	env = append(env, "APPLICATION="+a.name, "WORKER="+worker)
	a.workers[worker] = launch(t, worker, env, func(line string) { a.note(worker, line) }, java(module, "Worker", options...)...)
}

// note takes one event of a worker.
func (a *application) note(worker, line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := strings.Fields(line)
	switch {
	case len(f) == 6 && f[0] == "record":
		at := history.Place{ShardID: f[1], SequenceNumber: f[2]}
		if f[3] != "0" { // of an aggregated record
			at.SequenceNumber += "." + f[3]
		}
		a.reads[at] = history.Read{Place: at, Key: f[4], Value: f[5]}
		a.deliveries++
		a.perWorker[worker]++
	case len(f) == 2 && f[0] == "value":
		a.values[f[1]] = true
		a.deliveries++
		a.perWorker[worker]++
	case len(f) == 2 && f[0] == "ended":
		a.ended[f[1]] = worker
	case len(f) == 2 && (f[0] == "leased" || f[0] == "lost"):
	default:
		a.strange = append(a.strange, worker+": "+line)
	}
}

// alive gives an error if a worker has ended by itself.
func (a *application) alive() error {
	for name, p := range a.workers {
		if err := p.running(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// processed gives what was processed, in the order of shards and numbers.
func (a *application) processed() []history.Read {
	a.mu.Lock()
	defer a.mu.Unlock()
	reads := make([]history.Read, 0, len(a.reads))
	for _, r := range a.reads {
		reads = append(reads, r)
	}
	slices.SortFunc(reads, func(x, y history.Read) int {
		if c := strings.Compare(x.ShardID, y.ShardID); c != 0 {
			return c
		}
		if history.Less(x.SequenceNumber, y.SequenceNumber) {
			return -1
		}
		return 1
	})
	return reads
}

// allWork waits until every worker has processed a record since the call.
func (a *application) allWork(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	before := make(map[string]int)
	for w := range a.workers {
		before[w] = a.perWorker[w]
	}
	a.mu.Unlock()
	eventually(t, func() error {
		if err := a.alive(); err != nil {
			return err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for w, n := range before {
			if a.perWorker[w] == n {
				return fmt.Errorf("%s processes nothing: %v", w, a.perWorker)
			}
		}
		return nil
	})
}

// processes waits until the closed shards of the stream have ended and every
// open one has been read from, ends the load, and waits until all that it has put
// is processed, exactly as it was put.
func (a *application) processes(t *testing.T, c *kinesis.Client, stream string, l *load) {
	t.Helper()
	open, closed := listShards(t, c, stream)
	eventually(t, func() error {
		if err := a.alive(); err != nil {
			return err
		}
		a.place(l)
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, shard := range closed {
			if a.ended[shard] == "" && a.tellsEnds {
				return fmt.Errorf("%s has no end yet; ended: %v", shard, a.ended)
			}
		}
		read := map[string]bool{}
		for at := range a.reads {
			read[at.ShardID] = true
		}
		for _, shard := range open {
			if !read[shard] {
				return fmt.Errorf("nothing of %s has been processed", shard)
			}
		}
		return nil
	})
	put := l.stop(t)
	eventually(t, func() error {
		if err := a.alive(); err != nil {
			return err
		}
		a.place(l)
		if n := len(a.processed()); n < put {
			return fmt.Errorf("%d of %d records processed", n, put)
		}
		return nil
	})
	for _, v := range l.history.Check(a.processed()) {
		t.Error(v)
	}
}

// place finds the places of values that came without one.
func (a *application) place(l *load) {
	if !a.valuesOnly {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for value := range a.values {
		if read, acknowledged := l.read(value); acknowledged {
			a.reads[read.Place] = read
			delete(a.values, value)
		}
	}
}

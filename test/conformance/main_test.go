// Package conformance holds the real binary against the Kinesis API, row by row:
// a test for each thing that the service is known to do, in the words of its
// answers, so that tables and service can be held against each other.
//
// A row is named SECTION OPERATION/what, where the sections are
//
//	1  the wire: requests, headers, JSON and CBOR, malformed input, signatures
//	2  SubscribeToShard
//	3  control operations: states, streams, shards, tags, consumers, policies
//	4  records: routing, sizes, sequence numbers, results of puts
//	5  iterators and GetRecords
//	6  hash ranges, splits, merges, filters
//	7  capacity modes
//
// Every row runs twice: in JSON over HTTP/1.1, and in the CBOR of the Java SDKs
// over HTTP/2 with prior knowledge; with SHARDSTREAM_LONG=1 also the other way
// round. In texts and names <S> is the row's stream,
// <A> the account, <R> the region and <ARN> the stream's ARN. What is no test
// here stands in rows_test.go with the reason.
//
// SHARDSTREAM_CONFORMANCE_ENDPOINT=http://HOST:PORT runs the rows that need no particular
// node, which are most, against a cluster that is there already. They make some
// hundred streams in it.
//
// The package knows the server's command line and the wire, and imports nothing
// of it but for the rows that need a clock.
package conformance

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	program string // the binary under test, built once
	scratch string // data directories and logs, removed at the end
)

// patience bounds each wait for something that must happen. It is long: a
// starved machine may be slow, and only a hang should fail here.
const patience = 2 * time.Minute

// atOnce is how many rows run at a time unless -parallel says it. They wait for
// the node most of the time: a split takes up to a second.
const atOnce = "32"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			panic(err)
		}
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "shardstream-conformance-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	program = filepath.Join(scratch, "shardstream")
	build := exec.Command("go", "build", "-o", program, "shardstream/cmd/shardstream")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		return 1
	}
	defer stopNodes()
	return m.Run()
}

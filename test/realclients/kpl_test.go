package realclients

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"shardstream/test/history"
)

// TestKPL puts by the Kinesis Producer Library, which packs many user records
// into one record of the stream, and reads with the KCL, which unpacks them.
func TestKPL(t *testing.T) {
	r := trial(t, "KPL (Java, native)", "JSON, HTTP/1.1, TLS with our certificate verified",
		"aggregated records, read back one by one with the KCL 2 over TLS")
	r.needs(t, "kpl")
	r.needs(t, "kcl2")
	r.version = jarVersion(t, "kpl", "amazon-kinesis-producer")
	d := startDynamo(t, r)
	s := startServer(t, "--tls")
	const stream = "kpl"
	c := s.client(t)
	createStream(t, c, stream, 4)

	const count = 2000
	var put []history.Read
	numbers := map[history.Place]bool{} // of the stream's records
	p := launch(t, "kpl", clientEnv("ENDPOINT="+s.endpoint, "STREAM="+stream, "TRUST="+s.trust, "COUNT="+strconv.Itoa(count)), func(line string) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == "put" {
			at := history.Place{ShardID: f[1], SequenceNumber: f[2]}
			put = append(put, history.Read{Place: at, Key: f[3], Value: f[4]})
			numbers[at] = true
		}
	}, java("kpl", "Producer", "-Djava.io.tmpdir="+t.TempDir())...) // for the native program
	p.await(t)
	if len(put) != count || len(numbers) > count/10 {
		t.Fatalf("%d user records were put in %d records: not aggregated", len(put), len(numbers))
	}

	a := newApplication()
	env := clientEnv("ENDPOINT="+s.endpoint, "DYNAMODB="+d.endpoint, "STREAM="+stream, "RETRIEVAL=polling")
	a.startWorker(t, "w1", "kcl2", env, trustStore(t, s.trust)...)
	eventually(t, func() error {
		if n := len(a.processed()); n < count+1 { // and the KPL's first
			return fmt.Errorf("%d records processed", n)
		}
		return a.alive()
	})
	a.workers["w1"].finish(t)
	got := map[string]history.Read{}
	for _, read := range a.processed() {
		number, _, _ := strings.Cut(read.SequenceNumber, ".")
		read.SequenceNumber = number
		got[read.Value] = read
	}
	for _, want := range put {
		if got[want.Value] != want {
			t.Errorf("%s was put as %v and is read as %v", want.Value, want, got[want.Value])
		}
	}
	t.Logf("%d user records in %d records", count, len(numbers))
}

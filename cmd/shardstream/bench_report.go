package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// benchResult is what a measurement found.
type benchResult struct {
	Mode             string           `json:"mode"`
	Endpoint         string           `json:"endpoint"`
	Stream           string           `json:"stream,omitempty"`
	Shards           int              `json:"shards,omitempty"`
	Connections      int              `json:"connections"`
	Size             int              `json:"size"`            // of a record's data, bytes
	Batch            int              `json:"batch,omitempty"` // records in a PutRecords
	Rate             float64          `json:"rate,omitempty"`  // records a second asked for
	Seconds          float64          `json:"seconds"`
	Requests         int64            `json:"requests"`
	Records          int64            `json:"records"`
	Bytes            int64            `json:"bytes"` // of data
	RecordsPerSecond float64          `json:"recordsPerSecond"`
	MBPerSecond      float64          `json:"mbPerSecond"`
	Latency          benchLatency     `json:"latency"`             // of a request
	OfCeiling        float64          `json:"ofCeiling,omitempty"` // records a second, as a part of the ceiling's
	EndToEnd         *benchArrivals   `json:"endToEnd,omitempty"`
	Subscriptions    int              `json:"subscriptions,omitempty"`
	Errors           map[string]int64 `json:"errors"` // by code
	Verified         *benchVerified   `json:"verified,omitempty"`
}

// benchLatency is a distribution of times, in milliseconds.
type benchLatency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// benchArrivals is how long records took from put to get.
type benchArrivals struct {
	Records int64        `json:"records"`
	Latency benchLatency `json:"latency"`
}

// summarize turns a histogram of microseconds into milliseconds.
func summarize(h *hdrhistogram.Histogram) benchLatency {
	ms := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1000 }
	return benchLatency{P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(h.Max()) / 1000}
}

func (r *benchResult) rates() {
	if r.Seconds > 0 {
		r.RecordsPerSecond = float64(r.Records) / r.Seconds
		r.MBPerSecond = float64(r.Bytes) / 1e6 / r.Seconds
	}
}

func (r *benchResult) errorList() string {
	if len(r.Errors) == 0 {
		return "none"
	}
	var list []string
	for _, code := range slices.Sorted(maps.Keys(r.Errors)) {
		list = append(list, fmt.Sprintf("%s %s", decimal(r.Errors[code]), code))
	}
	return strings.Join(list, ", ")
}

func (r *benchResult) print(w io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Mode)
	if r.Batch > 0 {
		fmt.Fprintf(&b, " of %d", r.Batch)
	}
	fmt.Fprintf(&b, ": %s", r.Endpoint)
	if r.Stream != "" {
		fmt.Fprintf(&b, ", stream %s, %d shards", r.Stream, r.Shards)
	}
	fmt.Fprintf(&b, ", %d connections, %s B records, %.1f s\n", r.Connections, decimal(int64(r.Size)), r.Seconds)
	fmt.Fprintf(&b, "  records     %12s  %10s/s  %9.1f MB/s\n", decimal(r.Records), decimal(int64(r.RecordsPerSecond)), r.MBPerSecond)
	fmt.Fprintf(&b, "  requests    %12s  %10s/s\n", decimal(r.Requests), decimal(int64(float64(r.Requests)/max(r.Seconds, 1e-9))))
	fmt.Fprintf(&b, "  latency ms  %s\n", r.Latency)
	if r.OfCeiling > 0 {
		fmt.Fprintf(&b, "  of ceiling  %.1f %%\n", 100*r.OfCeiling)
	}
	if r.EndToEnd != nil {
		to := "get"
		if r.Subscriptions > 0 {
			to = fmt.Sprintf("event at %s subscriptions", decimal(int64(r.Subscriptions)))
		}
		fmt.Fprintf(&b, "  put to %s  %s  (%s records arrived)\n", to, r.EndToEnd.Latency, decimal(r.EndToEnd.Records))
	}
	fmt.Fprintf(&b, "  errors      %s\n", r.errorList())
	if v := r.Verified; v != nil {
		b.WriteString("  verified    " + v.String() + "\n")
		for _, example := range v.Examples {
			b.WriteString("    " + example + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String gives "p50 0.42  p90 …".
func (l benchLatency) String() string {
	return fmt.Sprintf("p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f", l.P50, l.P90, l.P99, l.P999, l.Max)
}

// String gives the verdict in words.
func (v *benchVerified) String() string {
	s := fmt.Sprintf("%s acknowledged", decimal(v.Acknowledged))
	if v.OK {
		s += ": none lost, none twice, all in order and where they were acknowledged"
	} else {
		s += fmt.Sprintf(": %s LOST, %s TWICE, %s OUT OF ORDER, %s MISPLACED, %s DAMAGED, %s NUMBERS NOT RISING",
			decimal(v.Lost), decimal(v.Twice), decimal(v.Disordered), decimal(v.Misplaced), decimal(v.Damaged), decimal(v.NotRising))
	}
	if v.Unknown > 0 {
		s += fmt.Sprintf("; %s stored without an answer", decimal(v.Unknown))
	}
	return s
}

//go:build linux

// Package report writes what a run of episodes found: a table for terminals, and
// a page with a timeline of each episode that needs nothing else to be looked at.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"shardstream/test/chaos/judge"
	"shardstream/test/chaos/run"
)

// Row sums up the episodes of one nemesis.
type Row struct {
	Nemesis, What      string
	Episodes, Strikes  int
	Took               time.Duration
	Put, Acknowledged  int
	Unknown, Read      int
	Lost, Twice, Order int
	Other              int // violations of other checks, complaints, problems
	LongestGap         time.Duration
	Failovers          []time.Duration
	FailoverP50, P99   time.Duration
	Slowest            time.Duration
	FailedSeeds        []uint64
}

// Rows gives one row a nemesis, in the order of the results.
func Rows(results []*run.Result) []*Row {
	var rows []*Row
	of := make(map[string]*Row)
	for _, r := range results {
		row := of[r.Nemesis]
		if row == nil {
			row = &Row{Nemesis: r.Nemesis, What: r.What}
			of[r.Nemesis] = row
			rows = append(rows, row)
		}
		row.Episodes++
		row.Strikes += r.Strikes
		row.Took += r.Took
		row.Put += r.Put
		row.Acknowledged += r.Acknowledged
		row.Unknown += r.Unknown
		row.Read += r.Read
		for check, n := range r.Counts {
			switch check {
			case judge.Lost:
				row.Lost += n
			case judge.Duplicated:
				row.Twice += n
			case judge.Unordered, judge.KeyOrder, judge.Unreal, judge.ParentLast:
				row.Order += n
			default:
				row.Other += n
			}
		}
		row.Other += len(r.Complaints) + len(r.Problems)
		row.LongestGap = max(row.LongestGap, r.LongestGap)
		row.Failovers = append(row.Failovers, r.Failovers...)
		if !r.OK() {
			row.FailedSeeds = append(row.FailedSeeds, r.Seed)
		}
	}
	for _, row := range rows {
		row.FailoverP50, row.P99 = run.Percentile(row.Failovers, 0.5), run.Percentile(row.Failovers, 0.99)
		row.Slowest = run.Percentile(row.Failovers, 1)
	}
	return rows
}

// Table writes the rows in Markdown.
func Table(w io.Writer, results []*run.Result) error {
	var b strings.Builder
	b.WriteString("| nemesis | time | records put | read | faults | lost | twice | out of order | else | longest without writes | a shard writes again: p50 / p99 / max |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range Rows(results) {
		again := ""
		if n := len(r.Failovers); n > 0 {
			again = fmt.Sprintf("%s / %s / %s of %d", round(r.FailoverP50), round(r.P99), round(r.Slowest), n)
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d | %s | %s |\n", r.Nemesis, r.Took.Round(time.Second), r.Put, r.Read,
			r.Strikes, r.Lost, r.Twice, r.Order, r.Other, round(r.LongestGap), again)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}

//go:embed page.html
var page string

// HTML writes the page.
func HTML(w io.Writer, title string, results []*run.Result) error {
	t, err := template.New("page").Funcs(template.FuncMap{"round": round, "chart": newChart}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		Title   string
		Rows    []*Row
		Results []*run.Result
	}{title, Rows(results), results})
}

// chart is a timeline as SVG needs it.
type chart struct {
	Width, Height int
	Bars          []bar // records acknowledged in each second
	Unknown       []bar
	Latency       string // points of the longest request of each second
	Marks         []mark
	Seconds       int
	MostRecords   int
	MostLatency   time.Duration
}

type bar struct{ X, Y, W, H int }

type mark struct {
	X    int
	Text string
	Heal bool
}

const (
	chartHeight = 120
	perSecond   = 8
)

func newChart(r *run.Result) chart {
	c := chart{Seconds: len(r.Timeline), Width: len(r.Timeline) * perSecond, Height: chartHeight, MostRecords: 1, MostLatency: time.Millisecond}
	for _, s := range r.Timeline {
		c.MostRecords = max(c.MostRecords, s.Acknowledged+s.Unknown)
		c.MostLatency = max(c.MostLatency, s.Longest)
	}
	var line []string
	for i, s := range r.Timeline {
		h := s.Acknowledged * chartHeight / c.MostRecords
		c.Bars = append(c.Bars, bar{i * perSecond, chartHeight - h, perSecond - 1, h})
		if u := s.Unknown * chartHeight / c.MostRecords; u > 0 {
			c.Unknown = append(c.Unknown, bar{i * perSecond, chartHeight - h - u, perSecond - 1, u})
		}
		y := chartHeight - int(int64(s.Longest)*chartHeight/int64(c.MostLatency))
		line = append(line, fmt.Sprintf("%d,%d", i*perSecond+perSecond/2, y))
	}
	c.Latency = strings.Join(line, " ")
	for _, e := range r.Events {
		heals := e.What == "heal" || e.What == "start" || e.What == "SIGCONT" || e.What == "well"
		c.Marks = append(c.Marks, mark{int(e.At.Seconds() * perSecond), fmt.Sprintf("%.2fs %s %s", e.At.Seconds(), e.What, e.Whom), heals})
	}
	return c
}

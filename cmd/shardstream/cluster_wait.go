package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// moveWatch shows how far an act has got that moves replicas.
type moveWatch struct {
	actFlags
	waitFlags
	index         uint64 // of the metadata that has the act
	look          func(*clusterView) movement
	started, done string

	samples []moveSample
}

// moveSample is what was left at a moment.
type moveSample struct {
	at    time.Time
	bytes uint64
}

// rateWindow is the time over which the rate is taken.
const rateWindow = 30 * time.Second

// run looks until all is done, or once without --wait.
func (w *moveWatch) run(e *env) error {
	redraw := isTerminal(e.stdout) && !w.JSON
	shown := ""
	for {
		v, err := lookAtCluster(e.ctx, w.Broker, true)
		switch {
		case e.ctx.Err() != nil:
			return w.left(e, redraw)
		case err != nil && !w.Wait:
			return err
		case err == nil && v.meta.index >= w.index: // a broker may be a moment behind
			m := w.look(v)
			m.Seconds = w.secondsLeft(time.Now(), m.Bytes)
			if err := w.show(e, m, redraw, &shown); err != nil || m.Done || !w.Wait {
				return err
			}
		case err == nil && len(w.Broker) > 1: // or it is cut off
			w.Broker = append(slices.Clone(w.Broker[1:]), w.Broker[0])
		case err != nil:
			fmt.Fprintf(e.stderr, "%v; looking again\n", err)
		}
		if pause(e.ctx, w.Interval) != nil {
			return w.left(e, redraw)
		}
	}
}

// left ends the looking by the user's wish.
func (w *moveWatch) left(e *env, redraw bool) error {
	if redraw {
		fmt.Fprintln(e.stdout)
	}
	if !w.JSON {
		fmt.Fprintln(e.stdout, w.started+", and goes on so")
	}
	return nil
}

func (w *moveWatch) show(e *env, m movement, redraw bool, shown *string) (err error) {
	if w.JSON {
		return printLine(e.stdout, m)
	}
	line := w.started + ": " + m.String()
	if m.Done {
		line = w.done
	}
	switch {
	case redraw && w.Wait:
		_, err = fmt.Fprintf(e.stdout, "\r\x1b[K%s", line)
		if m.Done {
			_, err = fmt.Fprintln(e.stdout)
		}
	case line != *shown: // a log needs no line that says nothing new
		_, err = fmt.Fprintln(e.stdout, line)
	}
	*shown = line
	return err
}

// secondsLeft estimates from the last half minute; -1 if nothing is known.
func (w *moveWatch) secondsLeft(now time.Time, bytes uint64) int64 {
	w.samples = append(w.samples, moveSample{now, bytes})
	for len(w.samples) > 2 && now.Sub(w.samples[1].at) >= rateWindow {
		w.samples = w.samples[1:]
	}
	first := w.samples[0]
	moved, took := float64(first.bytes)-float64(bytes), now.Sub(first.at).Seconds()
	if moved <= 0 || took <= 0 {
		return -1
	}
	return int64(float64(bytes)*took/moved) + 1
}

// String is the line that people see.
func (m movement) String() string {
	parts := []string{plural(uint64(m.Replicas), "replica") + " left"}
	if m.Leaders > 0 {
		parts = append(parts, plural(uint64(m.Leaders), "leadership"))
	}
	if m.UnderWay > 0 {
		parts = append(parts, fmt.Sprintf("%d under way", m.UnderWay))
	}
	parts = append(parts, size(m.Bytes)+" to copy")
	if m.Seconds >= 0 {
		parts = append(parts, "about "+(time.Duration(m.Seconds)*time.Second).String())
	}
	text := strings.Join(parts, ", ")
	if len(m.Blocked) > 0 {
		text += "; it can't end: " + strings.Join(m.Blocked, "; ")
	}
	return text
}

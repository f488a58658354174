package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

// progress redraws one line on a terminal twice a second. Where stderr is no
// terminal it prints nothing, so that logs stay readable.
type progress struct {
	done chan struct{}
	wg   sync.WaitGroup
}

// startProgress begins to show what line gives, which it calls with the time
// since the call before.
func startProgress(w io.Writer, wanted bool, line func(time.Duration) string) *progress {
	p := &progress{done: make(chan struct{})}
	if !wanted || !isTerminal(w) {
		return p
	}
	p.wg.Go(func() {
		ticker := time.NewTicker(500 * time.Millisecond)
		defer ticker.Stop()
		last := time.Now()
		for {
			select {
			case <-p.done:
				fmt.Fprint(w, "\r\x1b[K")
				return
			case now := <-ticker.C:
				fmt.Fprintf(w, "\r\x1b[K%s", line(now.Sub(last)))
				last = now
			}
		}
	})
	return p
}

// stop wipes the line and waits until nothing more is drawn.
func (p *progress) stop() {
	close(p.done)
	p.wg.Wait()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// pause waits for d, or until ctx ends, whose error it then gives.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// decimal gives 1234567 as "1,234,567".
func decimal(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// byteSize gives 1536 as "1.5 kB"; the units are powers of 1000.
func byteSize(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, u := float64(n)/1000, 0
	for ; v >= 999.95 && u < len(units)-1; u++ {
		v /= 1000
	}
	return fmt.Sprintf("%.1f %cB", v, units[u])
}

func perSecond(n int64, d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64(float64(n) / d.Seconds())
}

package gateway

import (
	"net/http"
	"time"
)

// eventWriter writes the frames of one stream of events to its client, each at
// once.
type eventWriter struct {
	g      *Gateway
	w      http.ResponseWriter
	rc     *http.ResponseController
	grace  time.Duration
	spoke  time.Time // when the last frame was written
	by     time.Time // the deadline that is set
	failed bool      // the client takes nothing any more
}

// serveEvents answers a call with its events.
func (g *Gateway) serveEvents(w http.ResponseWriter, s *subscription) {
	h := w.Header()
	h["Content-Type"] = []string{contentTypeEventStream}
	ew := &eventWriter{
		g: g, w: w, rc: http.NewResponseController(w),
		// HTTP/2 resets a stream at its deadline also while nothing is written.
		grace: max(g.cfg.BodyGrace, 2*(g.cfg.SubscriptionBeat+beatGrace)),
	}
	w.WriteHeader(http.StatusOK)
	s.run(ew)
}

// write writes one frame. It reports false when the client is gone, or takes in
// less than it must; the stream is over then.
func (w *eventWriter) write(frame []byte) bool {
	now := time.Now()
	// As answers: a reader who takes nothing in is cut off. A deadline that is far
	// enough is left as it is.
	by := pace{now, w.grace, w.g.cfg.BodyRate}.deadline(len(frame))
	if left := w.by.Sub(by); left < 0 || left > w.grace {
		w.by = by.Add(w.grace / 2)
		_ = w.rc.SetWriteDeadline(w.by)
	}
	_, err := w.w.Write(frame)
	if err == nil {
		err = w.rc.Flush()
	}
	if err != nil {
		w.g.log.Debug("event not taken", "error", err)
		w.failed = true
		return false
	}
	w.spoke = time.Now()
	return true
}

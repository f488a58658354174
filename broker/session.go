package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const (
	dialTimeout = time.Second
	// answerPatience is how long a session goes on without an answer. A
	// raft leader that is merely slow keeps its sessions.
	answerPatience = 2 * time.Second
	// suspectAfter refused dials in a row the raft leader is taken for dead.
	suspectAfter = 2
	// verifyTimeout bounds the raft leader's proof to itself that it still leads.
	verifyTimeout = 300 * time.Millisecond
)

// sessionConfig is what a session needs of the rest of the node. All of it is
// safe for concurrent use and never waits for records or their locks: a node
// that is busy must still be able to say that it lives.
type sessionConfig struct {
	ClusterID   string
	NodeID      string
	Incarnation uint64

	// Leader gives the node that leads raft, this one included, "" if none is known.
	Leader  func() string
	Address func(node string) string
	Dial    dialer
	// Health is what to say of this node.
	Health func() health
	// Frame gives the journal's last durable frame; nil if there is no journal.
	Frame func() uint64
	Clock *clock
	// Local answers a beat of this node while it leads raft itself.
	Local func(context.Context, *pb.Beat) (*pb.BeatAnswer, error)
	// LeaderSuspect is told that nobody listens at the raft leader's address.
	LeaderSuspect func()
	// Superseded is told that another process has registered as this node, so
	// that this one must end.
	Superseded func(error)
	Logger     *slog.Logger
}

// session is the node's proof of life: a beat each 50 ms to whoever leads raft,
// on a connection and goroutines of its own. What the answers say, the node
// goes by: that it is still heard, the cluster's time, whether it is fenced.
type session struct {
	cfg   sessionConfig
	pulse pulse

	answered atomic.Pointer[time.Time]
	fenced   atomic.Bool
}

func newSession(cfg sessionConfig) *session { return &session{cfg: cfg} }

// LastAnswered is when the last beat was sent that was answered; zero if none
// was. A leader that was answered within the read lease knows that it was not
// fenced by then.
func (s *session) LastAnswered() time.Time {
	if at := s.answered.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// Fenced tells that the raft leader has taken this node out.
func (s *session) Fenced() bool { return s.fenced.Load() }

// Lag is the node's own scheduling lag.
func (s *session) Lag() time.Duration { return time.Duration(s.pulse.reported.Load()) }

// run keeps a session with the raft leader until the context ends.
func (s *session) run(ctx context.Context) {
	refused := 0 // dials in a row
	last := ""
	for ctx.Err() == nil {
		leader := s.cfg.Leader()
		if leader != last {
			refused, last = 0, leader
		}
		switch leader {
		case "":
			s.pulse.wait(ctx, nil)
		case s.cfg.NodeID:
			s.answerSelf(ctx)
		default:
			err := s.with(ctx, leader)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				refused = 0
				if err != nil && ctx.Err() == nil {
					s.cfg.Logger.Debug("the session with the raft leader ended", "leader", leader, "error", err)
				}
			} else if refused++; refused >= suspectAfter {
				s.cfg.LeaderSuspect()
			}
			pause(ctx, retryPause)
		}
	}
}

// answerSelf beats to the controller in this process while it leads raft.
func (s *session) answerSelf(ctx context.Context) {
	for number := uint64(1); ctx.Err() == nil && s.cfg.Leader() == s.cfg.NodeID; number++ {
		sent, at := time.Now(), s.cfg.Clock.since()
		verify, cancel := context.WithTimeout(ctx, verifyTimeout)
		answer, err := s.cfg.Local(verify, s.beat(number))
		cancel()
		if err == nil {
			s.take(answer, sent, at)
		}
		s.pulse.wait(ctx, nil)
	}
}

// with holds one session with another node, until it breaks or that node leads
// raft no more.
func (s *session) with(ctx context.Context, leader string) error {
	address := s.cfg.Address(leader)
	if address == "" {
		return stream.Errorf(stream.Unavailable, "broker.session", "the address of the raft leader %s is not known yet", leader)
	}
	dialing, cancelDial := context.WithTimeout(ctx, dialTimeout)
	raw, err := s.cfg.Dial(dialing, address)
	cancelDial()
	if err != nil {
		return err
	}
	defer raw.Close() // in case that gRPC never takes it
	conn, err := newClientConn(address, onlyOnce(raw))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	calls, err := pb.NewControllerClient(conn).Session(ctx)
	if err != nil {
		return fromStatus("broker.session", err)
	}
	return s.exchange(ctx, cancel, leader, calls)
}

// onlyOnce gives a connection that exists to a gRPC client, which must not make
// another: whoever holds the session dials, so as to see what comes of it.
func onlyOnce(raw net.Conn) dialer {
	var taken atomic.Bool
	return func(context.Context, string) (net.Conn, error) {
		if taken.Swap(true) {
			return nil, net.ErrClosed
		}
		return raw, nil
	}
}

// sentBeats remembers when beats were sent that may still be answered.
type sentBeats struct {
	mu sync.Mutex
	at [128]sentBeat // by number modulo
}

type sentBeat struct {
	number uint64
	at     time.Time
	since  time.Duration
}

func (b *sentBeats) note(s sentBeat) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[s.number%uint64(len(b.at))] = s
}

func (b *sentBeats) of(number uint64) (sentBeat, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.at[number%uint64(len(b.at))]
	return s, s.number == number
}

func (s *session) exchange(ctx context.Context, cancel context.CancelFunc, leader string, calls grpc.BidiStreamingClient[pb.Beat, pb.BeatAnswer]) error {
	var sent sentBeats
	broken := make(chan struct{})
	heard := make(chan struct{}, 1)
	var recvErr error // written before broken is closed
	go func() {
		defer close(broken)
		for {
			answer, err := calls.Recv()
			if err != nil {
				recvErr = fromStatus("broker.session", err)
				return
			}
			if b, ok := sent.of(answer.Number); ok {
				s.take(answer, b.at, b.since)
			}
			select {
			case heard <- struct{}{}:
			default:
			}
		}
	}()
	defer func() {
		cancel()
		<-broken
	}()
	lastHeard := time.Now()
	for number := uint64(1); ; number++ {
		if s.cfg.Leader() != leader {
			return nil
		}
		b := s.beat(number)
		sent.note(sentBeat{number, time.Now(), s.cfg.Clock.since()})
		// Beats are far smaller than the flow-control window, so that sending
		// one does not wait even if nobody reads.
		if err := calls.Send(b); err != nil {
			<-broken // Recv has the reason
			return s.ended(recvErr)
		}
		switch s.pulse.wait(ctx, broken) {
		case pulseCancelled:
			return ctx.Err()
		case pulseBroken:
			return s.ended(recvErr)
		}
		select {
		case <-heard:
			lastHeard = time.Now()
		default:
			if time.Since(lastHeard) > answerPatience+s.Lag() {
				return stream.Errorf(stream.Timeout, "broker.session", "no answer for %v", answerPatience)
			}
		}
	}
}

// ended looks at why the other side ended a session.
func (s *session) ended(err error) error {
	if errors.Is(err, stream.Stale) {
		s.cfg.Superseded(err)
	}
	return err
}

func (s *session) beat(number uint64) *pb.Beat {
	h := s.cfg.Health()
	beat := &pb.Beat{
		ClusterId: s.cfg.ClusterID, NodeId: s.cfg.NodeID, Incarnation: s.cfg.Incarnation,
		Number: number, ClockMs: s.cfg.Clock.wall(), LagUs: s.Lag().Microseconds(),
		DiskStalled: h.stalled, DiskFull: h.full, Stopping: h.stopping,
	}
	if s.cfg.Frame != nil {
		beat.JournalFrame = s.cfg.Frame()
	}
	return beat
}

// take goes by an answer to a beat that was sent at the given moments.
func (s *session) take(answer *pb.BeatAnswer, sent time.Time, at time.Duration) {
	s.cfg.Clock.observe(answer.ClusterMs, at)
	if s.fenced.Swap(answer.Fenced) != answer.Fenced {
		if answer.Fenced {
			s.cfg.Logger.Warn("this node was taken for dead, and hears so: it takes no part until it is let in again")
		} else {
			s.cfg.Logger.Info("this node takes part again")
		}
	}
	for {
		old := s.answered.Load()
		if old != nil && !old.Before(sent) || s.answered.CompareAndSwap(old, &sent) {
			break
		}
	}
}

// pulse is the rhythm of beats, and measures by how much it is late.
type pulse struct {
	meter    lagMeter // used by the one goroutine that waits
	reported atomic.Int64
}

type pulseEnd uint8

const (
	pulseDue pulseEnd = iota
	pulseCancelled
	pulseBroken
)

// wait waits for the next beat, the context's end, or broken.
func (p *pulse) wait(ctx context.Context, broken <-chan struct{}) pulseEnd {
	due := time.Now().Add(beatEvery)
	timer := time.NewTimer(beatEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return pulseCancelled
	case <-broken:
		return pulseBroken
	case <-timer.C:
		p.meter.note(time.Since(due))
		p.reported.Store(int64(p.meter.p99()))
		return pulseDue
	}
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

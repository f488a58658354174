package gateway

import (
	"strings"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
)

// How a request names a stream: by StreamName, by an ARN, or by both.

// address is the stream that a request means.
type address struct {
	name    string
	account string // "" as in ours
}

// addressOf reads the two members; empty counts as absent, which validation has
// excluded for members that are there.
func addressOf(name, arn string) (address, *kinesis.Error) {
	switch {
	case arn == "" && name == "":
		return address{}, kinesis.NoStreamAddress()
	case arn == "":
		return address{name: name}, nil
	}
	a, ok := parseARN(arn)
	if !ok {
		return address{}, kinesis.ForeignARN(arn)
	}
	if name != "" && name != a.name {
		return address{}, kinesis.StreamAddressConflict(name, arn)
	}
	return a, nil
}

// parseARN reads arn:PARTITION:kinesis:REGION:ACCOUNT:stream/NAME. Region and
// partition are those of whoever wrote it, and are not looked at.
func parseARN(arn string) (address, bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "kinesis" {
		return address{}, false
	}
	name, ok := strings.CutPrefix(parts[5], "stream/")
	if !ok || name == "" {
		return address{}, false
	}
	return address{name: name, account: parts[4]}, true
}

// find gives the stream, nil if there is none. The account that texts speak of
// is the one that was addressed.
func (a address) find(m *metadata) (v *streamView, account string) {
	ours := m.cluster.GetAccountId()
	if a.account != "" && a.account != ours {
		return nil, a.account
	}
	return m.byName[a.name], ours
}

// locate gives the stream that a control operation means, of metadata that
// shows everything committed before the call.
func (c *call) locate(name, arn *string) (*metadata, *streamView, *kinesis.Error) {
	a, failure := addressOf(deref(name), deref(arn))
	if failure != nil {
		return nil, nil, failure
	}
	m, failure := c.linearizable()
	if failure != nil {
		return nil, nil, failure
	}
	v, account := a.find(m)
	if v == nil {
		return nil, nil, kinesis.StreamNotFound(a.name, account)
	}
	return m, v, nil
}

// linearizable gives metadata that shows everything committed before the call.
func (c *call) linearizable() (*metadata, *kinesis.Error) {
	m, err := c.g.linearizable(c.ctx())
	if err != nil {
		return nil, c.fail(err, subject{})
	}
	return m, nil
}

// cached gives the metadata at hand, for the data path. It waits only while
// there is none yet.
func (c *call) cached() (*metadata, *kinesis.Error) {
	m := c.g.meta.load()
	if m.cluster != nil {
		return m, nil
	}
	m, err := c.g.meta.await(c.ctx(), func(m *metadata) bool { return m.cluster != nil })
	if err != nil {
		return nil, c.fail(err, subject{})
	}
	return m, nil
}

// mustBeActive refuses a stream in any state but ACTIVE.
func mustBeActive(v *streamView, account string) *kinesis.Error {
	if v.Status == pb.StreamStatus_STREAM_STATUS_ACTIVE {
		return nil
	}
	return kinesis.StreamState(v.Name, account, statusName(v.Status))
}

func statusName(s pb.StreamStatus) string {
	switch s {
	case pb.StreamStatus_STREAM_STATUS_CREATING:
		return kinesis.StreamStatusCreating
	case pb.StreamStatus_STREAM_STATUS_UPDATING:
		return kinesis.StreamStatusUpdating
	case pb.StreamStatus_STREAM_STATUS_DELETING:
		return kinesis.StreamStatusDeleting
	}
	return kinesis.StreamStatusActive
}

func modeName(m pb.StreamMode) string {
	if m == pb.StreamMode_STREAM_MODE_ON_DEMAND {
		return kinesis.StreamModeOnDemand
	}
	return kinesis.StreamModeProvisioned
}

func modeDetails(m pb.StreamMode) *kinesis.StreamModeDetails {
	return &kinesis.StreamModeDetails{StreamMode: new(modeName(m))}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

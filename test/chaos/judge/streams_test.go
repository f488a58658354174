package judge

import (
	"testing"
	"time"
)

func TestStreams(t *testing.T) {
	call := func(c StreamCall, a StreamAnswer, from, to Time) StreamOp {
		return StreamOp{Name: "s", Call: c, Answer: a, Called: from, Returned: to}
	}
	for _, c := range []struct {
		name string
		ops  []StreamOp
		ok   bool
	}{
		{"a life", []StreamOp{
			call(DescribeStream, NotFound, 0, 1), call(CreateStream, Done, 2, 3), call(CreateStream, Exists, 4, 5), call(DescribeStream, Exists, 6, 7),
			call(DeleteStream, Done, 8, 9), call(DescribeStream, Disappears, 10, 11), call(DescribeStream, NotFound, 12, 13), call(CreateStream, Done, 14, 15),
		}, true},
		{"gone at once", []StreamOp{call(CreateStream, Done, 0, 1), call(DeleteStream, Done, 2, 3), call(CreateStream, Done, 4, 5)}, true},
		{"a lost answer that happened", []StreamOp{call(CreateStream, NoAnswer, 0, 1), call(CreateStream, Exists, 2, 3)}, true},
		{"a lost answer that did not", []StreamOp{call(CreateStream, NoAnswer, 0, 1), call(DescribeStream, NotFound, 2, 3)}, true},
		{"a lost answer that happens later", []StreamOp{call(CreateStream, NoAnswer, 0, 1), call(DescribeStream, NotFound, 2, 3), call(DescribeStream, Exists, 4, 5)}, true},
		{"at the same time", []StreamOp{call(CreateStream, Done, 0, 5), call(DescribeStream, NotFound, 1, 4)}, true},

		{"a read of the past", []StreamOp{call(CreateStream, Done, 0, 1), call(DescribeStream, NotFound, 2, 3)}, false},
		{"back from the dead", []StreamOp{call(CreateStream, Done, 0, 1), call(DeleteStream, Done, 2, 3), call(DescribeStream, Exists, 4, 5)}, false},
		{"made twice", []StreamOp{call(CreateStream, Done, 0, 1), call(CreateStream, Done, 2, 3)}, false},
		{"lost", []StreamOp{call(CreateStream, Done, 0, 1), call(DescribeStream, Exists, 2, 3), call(DescribeStream, NotFound, 4, 5)}, false},
		{"gone, and disappearing again", []StreamOp{
			call(CreateStream, Done, 0, 1), call(DeleteStream, Done, 2, 3), call(DescribeStream, NotFound, 4, 5), call(DescribeStream, Disappears, 6, 7),
		}, false},
	} {
		if text := CheckStreams(c.ops, time.Minute); (text == "") != c.ok {
			t.Errorf("%s: %q", c.name, text)
		}
	}
}

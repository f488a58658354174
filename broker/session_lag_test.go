package broker

import (
	"testing"
	"time"
)

func TestLagIsThatOfTheWorstBeatsOfTheLastSeconds(t *testing.T) {
	var m lagMeter
	if m.p99() != 0 {
		t.Fatal("lag before the first beat")
	}
	m.note(-time.Second)
	if m.p99() != 0 {
		t.Fatal("an early beat is lag")
	}
	m.note(300 * time.Millisecond)
	if m.p99() != 300*time.Millisecond {
		t.Fatal(m.p99())
	}
	for range lagWindow {
		m.note(time.Millisecond)
	}
	if m.p99() != time.Millisecond {
		t.Fatal("lag of long ago counts", m.p99())
	}
	m.note(time.Second)
	if m.p99() != time.Millisecond {
		t.Fatal("one of a hundred is no lag", m.p99())
	}
	m.note(time.Second)
	if m.p99() != time.Second {
		t.Fatal(m.p99())
	}
}

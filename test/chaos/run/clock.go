//go:build linux

package run

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"shardstream/test/chaos/lab"
	"shardstream/test/mutants"
)

// clockVariable names the file that holds how far a node's clock is off, ms.
const clockVariable = "SHARDSTREAM_TEST_CLOCK"

func clockFile(dir, node string) string { return filepath.Join(dir, "clock-"+node) }

// SetClocks is the broker with a clock that the file of its environment sets.
var SetClocks = mutants.Mutant{Name: "clocks", Edits: []mutants.Edit{
	{"broker/clock.go", "import (\n", "import (\n\t\"os\"\n\t\"strconv\"\n"},
	{
		"broker/clock.go", "wall:  func() int64 { return time.Now().UnixMilli() },",
		"wall: func() int64 {\n" +
			"\t\t\traw, _ := os.ReadFile(os.Getenv(\"" + clockVariable + "\"))\n" +
			"\t\t\toff, _ := strconv.ParseInt(string(raw), 10, 64)\n" +
			"\t\t\treturn time.Now().UnixMilli() + off\n" +
			"\t\t},",
	},
}}

// setClock puts a node's clock ahead, or back.
func (w *World) setClock(b *lab.Broker, off time.Duration) error {
	w.Events.Add("clock off by "+off.String(), b.Name)
	name := clockFile(w.dir, b.Name)
	// In one step: the broker must not read half of it.
	if err := os.WriteFile(name+".new", []byte(strconv.FormatInt(off.Milliseconds(), 10)), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func clockNemeses() []Nemesis {
	jumps := []time.Duration{time.Second, -time.Second, time.Hour, -time.Hour, 365 * 24 * time.Hour, -365 * 24 * time.Hour, 20 * time.Second, -20 * time.Second}
	return []Nemesis{
		{Name: "clock-jump", Needs: Clocks, What: "the clock of one broker jumps by a second, an hour or a year, and back", Strike: func(ctx context.Context, w *World) error {
			b := w.anyBroker()
			if err := w.setClock(b, jumps[w.Rand.IntN(len(jumps))]); err != nil {
				return err
			}
			pause(ctx, w.span(time.Second, 5*time.Second))
			return w.setClock(b, 0)
		}},
		{Name: "clock-strobe", Needs: Clocks, What: "the clocks of all brokers jump to and fro, and one is killed meanwhile", Strike: func(ctx context.Context, w *World) error {
			for range 10 {
				for _, b := range w.Brokers {
					if err := w.setClock(b, w.span(-3*time.Second, 3*time.Second)); err != nil {
						return err
					}
				}
				pause(ctx, w.span(50*time.Millisecond, 500*time.Millisecond))
			}
			if err := w.down(ctx, w.some(1), w.span(0, time.Second)); err != nil {
				return err
			}
			for _, b := range w.Brokers {
				if err := w.setClock(b, 0); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

package broker

import "testing"

func TestWhichIncarnationADiskClaims_I11(t *testing.T) {
	for _, c := range []struct {
		name  string
		mark  incarnationMark
		known uint64
		want  uint64
	}{
		{"a new disk", incarnationMark{}, 0, 0},
		{"a new disk under a known name", incarnationMark{}, 5, 0},
		{"a restart", incarnationMark{5, 5}, 5, 5},
		{"a crash before the registration was applied", incarnationMark{5, 6}, 5, 5},
		{"a crash before its outcome was written down", incarnationMark{5, 6}, 6, 6},
		{"a disk that was rolled back", incarnationMark{3, 3}, 5, 3},
		{"a disk that was rolled back to an attempt", incarnationMark{3, 4}, 5, 3},
	} {
		if got := c.mark.last(c.known); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestIncarnationMarkIsKept(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []incarnationMark{{}, {1, 2}, {2, 2}} {
		if want != (incarnationMark{}) {
			if err := want.save(dir); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := loadIncarnation(dir); err != nil || got != want {
			t.Fatalf("%+v, %v, want %+v", got, err, want)
		}
	}
}

package conformance

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// matcher is a wanted value that is not known to the letter.
type matcher struct {
	what string
	ok   func(f *format, got any) bool
}

func (w matcher) String() string { return w.what }

// like wants a string that the pattern matches as a whole.
func like(pattern string) matcher {
	re := regexp.MustCompile(`\A(?:` + pattern + `)\z`)
	return matcher{"a string like " + pattern, func(_ *format, got any) bool {
		s, ok := got.(string)
		return ok && re.MatchString(s)
	}}
}

var (
	aTime     = matcher{"a time", func(_ *format, got any) bool { at, ok := instant(got); return ok && at > 0 }}
	aSequence = like(`49\d{54}`)
	someText  = like(`.+`)
	anything  = matcher{"anything", func(*format, any) bool { return true }}
)

// atLeast wants an integer of n or more.
func atLeast(n int64) matcher {
	return matcher{fmt.Sprintf("%d or more", n), func(_ *format, got any) bool {
		i, ok := integer(got)
		return ok && i >= n
	}}
}

// some holds that these members are among those of a structure.
type some m

// differences says where got is not what is wanted, member by member. A member
// that is not wanted must be absent.
func differences(f *format, path string, want, got any) []string {
	at := func(text string, args ...any) []string {
		return []string{strings.TrimPrefix(path, ".") + ": " + fmt.Sprintf(text, args...)}
	}
	switch want := want.(type) {
	case matcher:
		if !want.ok(f, got) {
			return at("%v, not %v", got, want)
		}
	case some:
		structure, ok := got.(m)
		if !ok {
			return at("%v (%T), not a structure", got, got)
		}
		var found []string
		for _, key := range slices.Sorted(maps.Keys(want)) {
			found = append(found, member(f, path, key, want[key], structure)...)
		}
		return found
	case m:
		structure, ok := got.(m)
		if !ok {
			return at("%v (%T), not a structure", got, got)
		}
		found := differences(f, path, some(want), got)
		for _, key := range slices.Sorted(maps.Keys(structure)) {
			if _, wanted := want[key]; !wanted {
				found = append(found, at("has %s = %v, which should be absent", key, structure[key])...)
			}
		}
		return found
	case list:
		items, ok := got.(list)
		if !ok || len(items) != len(want) {
			return at("%v, not %d elements like %v", got, len(want), want)
		}
		var found []string
		for i := range want {
			found = append(found, differences(f, fmt.Sprintf("%s[%d]", path, i), want[i], items[i])...)
		}
		return found
	case []byte:
		if b, ok := blob(f, got); !ok || !bytes.Equal(b, want) {
			return at("%v, not the blob %q", got, want)
		}
	case moment:
		if when, ok := instant(got); !ok || when != want {
			return at("%v, not the time %v", got, want)
		}
	case int:
		if n, ok := integer(got); !ok || n != int64(want) {
			return at("%v (%T), not %d", got, got, want)
		}
	default:
		if got != want {
			return at("\n\t%v (%T), not\n\t%v (%T)", got, got, want, want)
		}
	}
	return nil
}

func member(f *format, path, key string, want any, structure m) []string {
	got, there := structure[key]
	if !there {
		return []string{strings.TrimPrefix(path+"."+key, ".") + ": absent, should be " + fmt.Sprint(want)}
	}
	return differences(f, path+"."+key, want, got)
}

package kinesis

import (
	"fmt"
	"reflect"
	"regexp"
)

// kind is the type of a shape.
type kind uint8

const (
	kindString kind = iota
	kindInteger
	kindLong
	kindBoolean
	kindBlob
	kindTimestamp
	kindList
	kindMap
	kindStructure
)

// shape describes a type of the API: what it holds and what it may hold.
type shape struct {
	name     string
	kind     kind
	min, max *int64 // value of numbers; length of strings (characters), blobs, lists and maps
	pattern  *pattern
	enum     []string // in the order in which errors print it
	elem     *shape   // of lists and maps
	key      *shape   // of maps
	goType   reflect.Type
	members  []member // of structures, in the order of the Go fields
	order    []int    // order in which members are checked, nil if it is theirs
}

// member is a member of a structure.
type member struct {
	name     string // on the wire
	path     string // in error texts
	field    int    // index of the Go field
	shape    *shape
	required bool
}

// lookup finds the member of that name, nil if there is none.
func (s *shape) lookup(name []byte) *member {
	for i := range s.members {
		if s.members[i].name == string(name) {
			return &s.members[i]
		}
	}
	return nil
}

// pattern is a regular expression that must match the whole of a value.
type pattern struct {
	text string // as printed
	re   *regexp.Regexp
}

func newPattern(text string) *pattern {
	return &pattern{text: text, re: regexp.MustCompile(`\A(?:` + text + `)\z`)}
}

func at(n int64) *int64 { return &n }

var shapesByType = func() map[reflect.Type]*shape {
	m := make(map[reflect.Type]*shape, len(structures))
	for _, s := range structures {
		m[s.goType] = s
	}
	return m
}()

// shapeOf gives the shape of a generated type. Another type is a mistake of the
// caller that no input can cause.
func shapeOf(t reflect.Type) *shape {
	s := shapesByType[t]
	if s == nil {
		panic(fmt.Sprintf("kinesis: %v is no shape of the API", t))
	}
	return s
}

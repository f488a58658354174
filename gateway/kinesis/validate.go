package kinesis

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxViolations is how many violations an error lists, and counts.
const maxViolations = 10

const notNull = "Member must not be null"

// violations collects what an input violates.
type violations struct{ list []string }

func (vs *violations) full() bool { return len(vs.list) == maxViolations }

// add notes a violation. An empty value leaves the value out of the text, as
// blobs and lists of structures have it.
func (vs *violations) add(value, path, constraint string) {
	if vs.full() {
		return
	}
	if value != "" {
		value += " "
	}
	vs.list = append(vs.list, "Value "+value+"at '"+path+"' failed to satisfy constraint: "+constraint)
}

func validate(s *shape, v reflect.Value) *Error {
	var vs violations
	vs.structure(s, v, "")
	if len(vs.list) == 0 {
		return nil
	}
	errors := " validation errors detected: "
	if len(vs.list) == 1 {
		errors = " validation error detected: "
	}
	return Validation(strconv.Itoa(len(vs.list)) + errors + strings.Join(vs.list, "; "))
}

func (vs *violations) structure(s *shape, v reflect.Value, prefix string) {
	for i := range s.members {
		m := &s.members[i]
		if s.order != nil {
			m = &s.members[s.order[i]]
		}
		if vs.full() {
			return
		}
		field := v.Field(m.field)
		if absent(field) {
			if m.required {
				vs.add("null", prefix+m.path, notNull)
			}
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		vs.value(m.shape, field, prefix+m.path)
	}
}

// absent reports whether a field holds no value.
func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return v.IsNil()
	}
	return false
}

func (vs *violations) value(s *shape, v reflect.Value, path string) {
	switch s.kind {
	case kindString:
		text := v.String()
		for _, c := range s.stringViolations(text, true) {
			vs.add("'"+text+"'", path, c)
		}
	case kindInteger, kindLong:
		n := v.Int()
		if s.min != nil && n < *s.min {
			vs.add("'"+strconv.FormatInt(n, 10)+"'", path, atLeast("value", *s.min))
		}
		if s.max != nil && n > *s.max {
			vs.add("'"+strconv.FormatInt(n, 10)+"'", path, atMost("value", *s.max))
		}
	case kindBlob:
		vs.length(s, v.Len(), path, func() string { return "" })
	case kindList:
		vs.listValue(s, v, path)
	case kindMap:
		vs.mapValue(s, v, path)
	case kindStructure:
		vs.structure(s, v, path+".")
	}
}

func atLeast(what string, n int64) string {
	return "Member must have " + what + " greater than or equal to " + strconv.FormatInt(n, 10)
}

func atMost(what string, n int64) string {
	return "Member must have " + what + " less than or equal to " + strconv.FormatInt(n, 10)
}

func (vs *violations) length(s *shape, n int, path string, value func() string) {
	if s.min != nil && int64(n) < *s.min {
		vs.add(value(), path, atLeast("length", *s.min))
	}
	if s.max != nil && int64(n) > *s.max {
		vs.add(value(), path, atMost("length", *s.max))
	}
}

// stringViolations gives the constraints that a string violates, all or the
// first of them.
func (s *shape) stringViolations(text string, all bool) (found []string) {
	if s.pattern != nil && !s.hopeless(text) && !s.pattern.re.MatchString(text) {
		if found = append(found, "Member must satisfy regular expression pattern: "+s.pattern.text); !all {
			return found
		}
	}
	if s.min != nil || s.max != nil {
		n := int64(utf8.RuneCountInString(text))
		if s.min != nil && n < *s.min {
			found = append(found, atLeast("length", *s.min))
		}
		if s.max != nil && n > *s.max {
			found = append(found, atMost("length", *s.max))
		}
	}
	if s.enum != nil && !slices.Contains(s.enum, text) {
		found = append(found, "Member must satisfy enum value set: ["+strings.Join(s.enum, ", ")+"]")
	}
	return found
}

// hopeless reports whether a string is so much too long that matching it is not
// worth the time; only its length is then complained of.
func (s *shape) hopeless(text string) bool { return s.max != nil && len(text) > 64<<10 }

// constraints gives all constraints of a string, as errors about lists and maps
// print them.
func (s *shape) constraints() string {
	var cs []string
	if s.pattern != nil {
		cs = append(cs, "Member must satisfy regular expression pattern: "+s.pattern.text)
	}
	if s.max != nil {
		cs = append(cs, atMost("length", *s.max))
	}
	if s.min != nil {
		cs = append(cs, atLeast("length", *s.min))
	}
	if s.enum != nil {
		cs = append(cs, "Member must satisfy enum value set: ["+strings.Join(s.enum, ", ")+"]")
	}
	return "[" + strings.Join(cs, ", ") + "]"
}

func (vs *violations) listValue(s *shape, v reflect.Value, path string) {
	if s.elem.kind == kindStructure {
		vs.length(s, v.Len(), path, func() string { return "" })
		for i := range v.Len() {
			if vs.full() {
				return
			}
			vs.structure(s.elem, v.Index(i), path+"."+strconv.Itoa(i+1)+".member.")
		}
		return
	}
	items := v.Interface().([]string)
	value := func() string { return "'[" + strings.Join(items, ", ") + "]'" }
	vs.length(s, len(items), path, value)
	for _, item := range items {
		if s.elem.stringViolations(item, false) != nil {
			vs.add(value(), path, "Member must satisfy constraint: "+s.elem.constraints())
			return
		}
	}
}

func (vs *violations) mapValue(s *shape, v reflect.Value, path string) {
	m := v.Interface().(map[string]string)
	keys := slices.Sorted(maps.Keys(m))
	value := func() string {
		pairs := make([]string, len(keys))
		for i, k := range keys {
			pairs[i] = k + "=" + m[k]
		}
		return "'{" + strings.Join(pairs, ", ") + "}'"
	}
	vs.length(s, len(m), path, value)
	badKey, badValue := false, false
	for _, k := range keys {
		badKey = badKey || s.key.stringViolations(k, false) != nil
		badValue = badValue || s.elem.stringViolations(m[k], false) != nil
	}
	if badKey {
		vs.add(value(), path, "Map keys must satisfy constraint: "+s.key.constraints())
	}
	if badValue {
		vs.add(value(), path, "Map value must satisfy constraint: "+s.elem.constraints())
	}
}

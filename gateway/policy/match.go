package policy

import "strings"

// Match reports whether s is what the pattern says: * stands for any characters,
// ? for one.
func Match(pattern, s string) bool {
	// The last * seen, and where in s what it stands for ends. If the rest does
	// not fit, it stands for one more.
	star, from := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// MatchAction is Match for actions, whose case does not matter.
func MatchAction(pattern, action string) bool {
	return Match(strings.ToLower(pattern), strings.ToLower(action))
}

// MatchARN is Match for ARNs, in which the region is anybody's: it is what the
// caller has signed for, and there is only one here. So no Deny is got round by
// signing for another.
func MatchARN(pattern, arn string) bool {
	if Match(pattern, arn) {
		return true
	}
	p, a := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	if len(p) != 6 || len(a) != 6 {
		return false
	}
	const partition, region = 1, 3
	for i := range p {
		if i != partition && i != region && !Match(p[i], a[i]) {
			return false
		}
	}
	return true
}

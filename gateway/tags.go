package gateway

import (
	"maps"
	"slices"
	"unicode"

	"shardstream/gateway/kinesis"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Behaviour: AddTagsToStream and TagResource add tags or overwrite their values,
// RemoveTagsFromStream and UntagResource remove them, unknown keys ignored; all
// answer empty. ListTagsForStream pages by key, ListTagsForResource gives all.
//
//   - Up to 50 tags per stream; keys of 1 to 128, values of 0 to 256 characters.
//   - Letters, digits, the plain space and _ . / = + - @ are fine, and so is ":",
//     which AWS documents for TagResource. "%" passes the first check of the
//     characters and fails the second, as on AWS.
//   - The stream is looked for before the characters are looked at, and must
//     have been created: tags change when it is ACTIVE or UPDATING.
//   - Lists are in the order of the keys' code points.

const (
	maxTags         = 50
	defaultTagsPage = 50
)

func addTagsToStream(c *call, in *kinesis.AddTagsToStreamInput) (*empty, *kinesis.Error) {
	return nil, c.addTags(in.StreamName, in.StreamARN, in.Tags)
}

func tagResource(c *call, in *kinesis.TagResourceInput) (*empty, *kinesis.Error) {
	return nil, c.addTags(nil, in.ResourceARN, in.Tags)
}

func removeTagsFromStream(c *call, in *kinesis.RemoveTagsFromStreamInput) (*empty, *kinesis.Error) {
	return nil, c.removeTags(in.StreamName, in.StreamARN, in.TagKeys)
}

func untagResource(c *call, in *kinesis.UntagResourceInput) (*empty, *kinesis.Error) {
	return nil, c.removeTags(nil, in.ResourceARN, in.TagKeys)
}

func listTagsForStream(c *call, in *kinesis.ListTagsForStreamInput) (*kinesis.ListTagsForStreamOutput, *kinesis.Error) {
	_, v, failure := c.locate(in.StreamName, in.StreamARN)
	if failure != nil {
		return nil, failure
	}
	tags := tagsAfter(v, deref(in.ExclusiveStartTagKey))
	limit := defaultTagsPage
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	more := len(tags) > limit
	if more {
		tags = tags[:limit]
	}
	return &kinesis.ListTagsForStreamOutput{Tags: tags, HasMoreTags: more}, nil
}

func listTagsForResource(c *call, in *kinesis.ListTagsForResourceInput) (*kinesis.ListTagsForResourceOutput, *kinesis.Error) {
	_, v, failure := c.locate(nil, in.ResourceARN)
	if failure != nil {
		return nil, failure
	}
	return &kinesis.ListTagsForResourceOutput{Tags: tagsAfter(v, "")}, nil
}

// tagsAfter gives the tags whose keys are greater, in order; never nil.
func tagsAfter(v *streamView, key string) []kinesis.Tag {
	tags := make([]kinesis.Tag, 0, len(v.Tags))
	for _, k := range slices.Sorted(maps.Keys(v.Tags)) {
		if k > key {
			tags = append(tags, kinesis.Tag{Key: k, Value: new(v.Tags[k])})
		}
	}
	return tags
}

func (c *call) addTags(name, arn *string, tags map[string]string) *kinesis.Error {
	m, v, failure := c.locate(name, arn)
	if failure != nil {
		return failure
	}
	account := m.cluster.AccountId
	if failure := taggable(v, account); failure != nil {
		return failure
	}
	if failure := checkTags(tags, v.Name, account); failure != nil {
		return failure
	}
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_AddTags{AddTags: &pb.AddTags{
		StreamId: v.Id, Tags: tags, Limit: maxTags,
	}}})
	if err != nil {
		return c.fail(err, subject{name: v.Name, account: account})
	}
	if stream.Kind(r.Error) == stream.LimitExceeded {
		return kinesis.TooManyTags(v.Name, account)
	}
	return c.refused(r, subject{name: v.Name, account: account})
}

func (c *call) removeTags(name, arn *string, keys []string) *kinesis.Error {
	m, v, failure := c.locate(name, arn)
	if failure != nil {
		return failure
	}
	account := m.cluster.AccountId
	if failure := taggable(v, account); failure != nil {
		return failure
	}
	switch judgeTags(slices.Values(keys)) {
	case tagInvalid:
		return kinesis.InvalidTagCharacters()
	case tagIllegal:
		return kinesis.IllegalTagsRemoved(v.Name, account)
	}
	r, err := c.g.propose(c.ctx(), &pb.Command{Op: &pb.Command_RemoveTags{RemoveTags: &pb.RemoveTags{StreamId: v.Id, Keys: keys}}})
	if err != nil {
		return c.fail(err, subject{name: v.Name, account: account})
	}
	return c.refused(r, subject{name: v.Name, account: account})
}

func taggable(v *streamView, account string) *kinesis.Error {
	if v.Status == pb.StreamStatus_STREAM_STATUS_UPDATING {
		return nil
	}
	return mustBeActive(v, account)
}

func checkTags(tags map[string]string, name, account string) *kinesis.Error {
	switch max(judgeTags(maps.Keys(tags)), judgeTags(maps.Values(tags))) {
	case tagInvalid:
		return kinesis.InvalidTagCharacters()
	case tagIllegal:
		return kinesis.IllegalTagsAdded(name, account)
	}
	return nil
}

type tagVerdict int

const (
	tagFine tagVerdict = iota
	tagIllegal
	tagInvalid
)

// judgeTags gives the worst verdict on any of the strings.
func judgeTags(words func(yield func(string) bool)) tagVerdict {
	worst := tagFine
	for word := range words {
		for _, r := range word {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r):
			case r == '%':
				worst = max(worst, tagIllegal)
			default:
				if !isTagMark(r) {
					return tagInvalid
				}
			}
		}
	}
	return worst
}

func isTagMark(r rune) bool {
	switch r {
	case ' ', '_', '.', '/', '=', '+', '-', '@', ':':
		return true
	}
	return false
}

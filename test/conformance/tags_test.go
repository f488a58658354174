package conformance

import (
	"fmt"
	"strings"
)

// Section 3.5: tags of streams.

const (
	invalidTags  = "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @."
	illegalTags  = " because some tags contained illegal characters. The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."
	tooManyTags  = "Failed to add tags to stream <S> under account <A> because a given stream cannot have more than 10 tags associated with it."
	tagsNotAdded = "Failed to add tags to stream <S> under account <A>" + illegalTags
)

func tagged(tags m) m { return m{"StreamName": "<S>", "Tags": tags} }

// pairs are tags as lists show them.
func pairs(keysAndValues ...string) list {
	tags := list{}
	for i := 0; i < len(keysAndValues); i += 2 {
		tags = append(tags, m{"Key": keysAndValues[i], "Value": keysAndValues[i+1]})
	}
	return tags
}

var tagRows = []row{
	{"3.5 tags/none", func(c *caller) {
		c.create(1)
		c.gives("ListTagsForStream", m{"StreamName": "<S>"}, m{"Tags": list{}, "HasMoreTags": false})
		c.gives("ListTagsForResource", m{"ResourceARN": "<ARN>"}, m{"Tags": list{}})
	}},
	{"3.5 tags/added, overwritten, removed", func(c *caller) {
		c.create(1)
		c.empty("AddTagsToStream", tagged(m{"b": "1", "a": "", "Z": "x y"}))
		c.empty("TagResource", m{"ResourceARN": "<ARN>", "Tags": m{"b": "2", "c": "3"}})
		c.gives("ListTagsForStream", m{"StreamName": "<S>"}, m{"Tags": pairs("Z", "x y", "a", "", "b", "2", "c", "3"), "HasMoreTags": false})
		c.empty("RemoveTagsFromStream", m{"StreamName": "<S>", "TagKeys": list{"a", "unknown"}})
		c.empty("UntagResource", m{"ResourceARN": "<ARN>", "TagKeys": list{"b", "unknown"}})
		c.gives("ListTagsForResource", m{"ResourceARN": "<ARN>"}, m{"Tags": pairs("Z", "x y", "c", "3")})
	}},
	{"3.5 tags/lengths", func(c *caller) {
		c.create(1)
		key, value := strings.Repeat("é", 128), strings.Repeat("é", 256)
		c.empty("AddTagsToStream", tagged(m{key: value}))
		c.gives("ListTagsForStream", m{"StreamName": "<S>"}, m{"Tags": pairs(key, value), "HasMoreTags": false})
	}},
	{"3.5 tags/order and pages", func(c *caller) {
		c.create(1)
		c.empty("AddTagsToStream", tagged(m{"b": "", "a": "", "Z": "", "é": "", "1": "", "a b": ""}))
		order := []string{"1", "Z", "a", "a b", "b", "é"}
		page := func(in m, more bool, keys ...string) {
			c.Helper()
			want := list{}
			for _, key := range keys {
				want = append(want, m{"Key": key, "Value": ""})
			}
			c.gives("ListTagsForStream", with(in, "StreamName", "<S>"), m{"Tags": want, "HasMoreTags": more})
		}
		page(m{}, false, order...)
		page(m{"Limit": 2}, true, order[:2]...)
		page(m{"Limit": 2, "ExclusiveStartTagKey": "Z"}, true, order[2:4]...)
		page(m{"Limit": 50, "ExclusiveStartTagKey": "Zzz"}, false, order[2:]...)
		page(m{"ExclusiveStartTagKey": "é"}, false)
	}},
	{"3.5 tags/valid characters", func(c *caller) {
		c.create(1)
		c.empty("AddTagsToStream", tagged(m{"aZ09 _./=+-@": "é ß 漢字 ا"}))
		c.empty("TagResource", m{"ResourceARN": "<ARN>", "Tags": m{"a:b": ":"}})
	}},
	{"3.5 tags/invalid characters", func(c *caller) {
		c.create(1)
		for _, bad := range []string{"a\tb", "a\n", "a,b", "a;", "a\u00a0b", "a*", "a&b", "a%;"} {
			c.refused("AddTagsToStream", tagged(m{bad: "v"}), invalidArgument, invalidTags)
			c.refused("AddTagsToStream", tagged(m{"k": bad}), invalidArgument, invalidTags)
			c.refused("TagResource", m{"ResourceARN": "<ARN>", "Tags": m{bad: "v"}}, invalidArgument, invalidTags)
			c.refused("RemoveTagsFromStream", m{"StreamName": "<S>", "TagKeys": list{"k", bad}}, invalidArgument, invalidTags)
			c.refused("UntagResource", m{"ResourceARN": "<ARN>", "TagKeys": list{bad}}, invalidArgument, invalidTags)
		}
		c.gives("ListTagsForStream", m{"StreamName": "<S>"}, m{"Tags": list{}, "HasMoreTags": false})
	}},
	{"3.5 tags/% passes the first check only", func(c *caller) {
		c.create(1)
		c.refused("AddTagsToStream", tagged(m{"a%": "v"}), invalidArgument, tagsNotAdded)
		c.refused("AddTagsToStream", tagged(m{"k": "100%"}), invalidArgument, tagsNotAdded)
		c.refused("RemoveTagsFromStream", m{"StreamName": "<S>", "TagKeys": list{"a%"}}, invalidArgument,
			"Failed to remove tags from stream <S> under account <A>"+illegalTags)
	}},
	{"3.5 tags/more than 50", func(c *caller) {
		c.create(1)
		many, _ := manyTags(50)
		c.empty("AddTagsToStream", tagged(many))
		c.refused("AddTagsToStream", tagged(m{"one more": "v"}), invalidArgument, tooManyTags)
		c.refused("TagResource", m{"ResourceARN": "<ARN>", "Tags": m{"one more": "v"}}, invalidArgument, tooManyTags)
		c.empty("AddTagsToStream", tagged(m{"k000": "again"}))
		out := c.ok("ListTagsForStream", m{"StreamName": "<S>"})
		if n := len(out["Tags"].(list)); n != 50 || out["HasMoreTags"] != false {
			c.Errorf("%d tags, more %v", n, out["HasMoreTags"])
		}
		if n := len(c.ok("ListTagsForResource", m{"ResourceARN": "<ARN>"})["Tags"].(list)); n != 50 {
			c.Errorf("%d tags of the resource", n)
		}
	}},
	{"3.5 tags/more than 50 in one call", func(c *caller) {
		c.create(1)
		many, _ := manyTags(51)
		c.refused("AddTagsToStream", tagged(many), invalidArgument, tooManyTags)
	}},
	{"3.5 tags/existence before characters", func(c *caller) {
		for op, in := range map[string]m{
			"AddTagsToStream":      tagged(m{"a;": "v"}),
			"RemoveTagsFromStream": {"StreamName": "<S>", "TagKeys": list{"a;"}},
			"TagResource":          {"ResourceARN": "<ARN>", "Tags": m{"a;": "v"}},
			"UntagResource":        {"ResourceARN": "<ARN>", "TagKeys": list{"a;"}},
		} {
			c.refused(op, in, notFound, "Stream <S> under account <A> not found.")
		}
	}},
	{"3.5 tags/of consumers", func(c *caller) {
		c.create(1)
		arn := c.consumer("c")
		c.empty("TagResource", m{"ResourceARN": arn, "Tags": m{"a": "1", "b": "2"}})
		c.empty("UntagResource", m{"ResourceARN": arn, "TagKeys": list{"a"}})
		c.gives("ListTagsForResource", m{"ResourceARN": arn}, m{"Tags": pairs("b", "2")})
		c.gives("ListTagsForResource", m{"ResourceARN": "<ARN>"}, m{"Tags": list{}})
	}},
}

// consumer registers a consumer of the row's stream, waits until it is ACTIVE
// and gives its ARN.
func (c *caller) consumer(name string) string {
	c.Helper()
	arn := c.ok("RegisterStreamConsumer", m{"StreamARN": "<ARN>", "ConsumerName": name})["Consumer"].(m)["ConsumerARN"].(string)
	c.eventually(func() error {
		d := c.ok("DescribeStreamConsumer", m{"ConsumerARN": arn})["ConsumerDescription"].(m)
		if d["ConsumerStatus"] != "ACTIVE" {
			return fmt.Errorf("the consumer is %v", d["ConsumerStatus"])
		}
		return nil
	})
	return arn
}

package conformance

// Sections 3.6, 7.1 and the rest of 3.3: monitoring, modes, record sizes, warm
// throughput, and the account.

var allMetrics = list{
	"IncomingBytes", "IncomingRecords", "OutgoingBytes", "OutgoingRecords",
	"WriteProvisionedThroughputExceeded", "ReadProvisionedThroughputExceeded", "IteratorAgeMilliseconds",
}

func metrics(names ...any) m { return m{"StreamName": "<S>", "ShardLevelMetrics": list(names)} }

func monitored(before, after list) m {
	return m{"StreamName": "<S>", "StreamARN": "<ARN>", "CurrentShardLevelMetrics": before, "DesiredShardLevelMetrics": after}
}

// changed makes a call that lets the row's stream be UPDATING, and waits.
func (c *caller) changed(op string, in m, want m) {
	c.Helper()
	c.gives(op, in, want)
	c.active()
}

const warmRefused = "Warm throughput is not available for stream <S> under account <A>."

var settingsRows = []row{
	{"3.6 monitoring/before and after", func(c *caller) {
		c.create(1)
		shown := func(names list) {
			c.Helper()
			want := some{"EnhancedMonitoring": list{m{"ShardLevelMetrics": names}}}
			c.want("summary", want, c.summary())
			c.want("description", want, c.ok("DescribeStream", m{"StreamName": "<S>"})["StreamDescription"])
		}
		c.changed("EnableEnhancedMonitoring", metrics("OutgoingBytes", "IncomingBytes"), monitored(list{}, list{"IncomingBytes", "OutgoingBytes"}))
		shown(list{"IncomingBytes", "OutgoingBytes"})
		c.changed("EnableEnhancedMonitoring", metrics("IncomingBytes", "IncomingRecords"),
			monitored(list{"IncomingBytes", "OutgoingBytes"}, list{"IncomingBytes", "IncomingRecords", "OutgoingBytes"}))
		c.changed("DisableEnhancedMonitoring", metrics("IncomingBytes", "OutgoingRecords"),
			monitored(list{"IncomingBytes", "IncomingRecords", "OutgoingBytes"}, list{"IncomingRecords", "OutgoingBytes"}))
		shown(list{"IncomingRecords", "OutgoingBytes"})
		c.changed("DisableEnhancedMonitoring", metrics("IncomingRecords", "OutgoingBytes"), monitored(list{"IncomingRecords", "OutgoingBytes"}, list{}))
		shown(list{})
	}},
	{"3.6 monitoring/ALL", func(c *caller) {
		c.create(1)
		c.changed("EnableEnhancedMonitoring", metrics("ALL"), monitored(list{}, allMetrics))
		c.want("summary", some{"EnhancedMonitoring": list{m{"ShardLevelMetrics": allMetrics}}}, c.summary())
		c.changed("EnableEnhancedMonitoring", metrics("ALL"), monitored(allMetrics, allMetrics))
		c.changed("DisableEnhancedMonitoring", metrics("ALL"), monitored(allMetrics, list{}))
	}},

	{"3.3 account settings/without a commitment", func(c *caller) {
		c.gives("DescribeAccountSettings", m{}, committed(m{"Status": "DISABLED"}))
		c.gives("UpdateAccountSettings", commitment("DISABLED"), committed(m{"Status": "DISABLED"}))
	}},
	{"3.3 UpdateMaxRecordSize/in force", func(c *caller) {
		c.create(1)
		c.refused("UpdateMaxRecordSize", m{"MaxRecordSizeInKiB": 2048}, validation,
			"1 validation error detected: Value null at 'streamARN' failed to satisfy constraint: Member must not be null")
		c.empty("UpdateMaxRecordSize", m{"StreamARN": "<ARN>", "MaxRecordSizeInKiB": 2048})
		c.active()
		c.want("summary", some{"MaxRecordSizeInKiB": 2048}, c.summary())
		c.ok("PutRecord", putIn("k", make([]byte, 2<<20-1), nil))
	}},
	{"3.3 UpdateStreamMode/shards stay", func(c *caller) {
		c.create(3)
		for _, mode := range []string{"ON_DEMAND", "ON_DEMAND", "PROVISIONED"} {
			c.empty("UpdateStreamMode", m{"StreamARN": "<ARN>", "StreamModeDetails": m{"StreamMode": mode}})
			c.active()
			c.want("summary", some{"StreamModeDetails": m{"StreamMode": mode}, "OpenShardCount": 3}, c.summary())
		}
	}},
	{"3.3 UpdateStreamWarmThroughput/refused", func(c *caller) {
		c.create(1)
		c.refused("UpdateStreamWarmThroughput", m{"StreamName": "<S>", "WarmThroughputMiBps": 10}, validation, warmRefused)
		c.empty("UpdateStreamMode", m{"StreamARN": "<ARN>", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}})
		c.active()
		// An on-demand stream, but no commitment of the account.
		c.refused("UpdateStreamWarmThroughput", m{"StreamName": "<S>", "WarmThroughputMiBps": 10}, validation, warmRefused)
		c.refused("UpdateStreamMode", m{"StreamARN": "<ARN>", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}, "WarmThroughputMiBps": 10}, validation, warmRefused)
		if got, there := c.summary()["WarmThroughput"]; there {
			c.Errorf("WarmThroughput %v", got)
		}
	}},
}

func commitment(status string) m {
	return m{"MinimumThroughputBillingCommitment": m{"Status": status}}
}

func committed(shape m) m { return m{"MinimumThroughputBillingCommitment": shape} }

// commitmentRows change the account, one after the other.
var commitmentRows = []row{
	{"3.3 account settings/commitment", func(c *caller) {
		on := m{"Status": "ENABLED", "StartedAt": aTime, "EarliestAllowedEndAt": aTime}
		out := c.gives("UpdateAccountSettings", commitment("ENABLED"), committed(on))["MinimumThroughputBillingCommitment"].(m)
		started, _ := instant(out["StartedAt"])
		earliest, _ := instant(out["EarliestAllowedEndAt"])
		if earliest-started != 24*3600_000 {
			c.Errorf("from %v until %v at least", started, earliest)
		}
		c.gives("DescribeAccountSettings", m{}, committed(on))
		until := m{"Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END", "StartedAt": started, "EarliestAllowedEndAt": earliest}
		c.gives("UpdateAccountSettings", commitment("DISABLED"), committed(until))
		c.gives("DescribeAccountSettings", m{}, committed(until))
		c.gives("UpdateAccountSettings", commitment("ENABLED"), committed(m{"Status": "ENABLED", "StartedAt": started, "EarliestAllowedEndAt": earliest}))
	}},
	{"3.3 UpdateStreamWarmThroughput/with a commitment", func(c *caller) {
		c.ok("UpdateAccountSettings", commitment("ENABLED"))
		c.empty("CreateStream", m{"StreamName": "<S>", "WarmThroughputMiBps": 5})
		c.active()
		c.want("summary", some{"WarmThroughput": m{"TargetMiBps": 5, "CurrentMiBps": 4}}, c.summary())
		c.gives("UpdateStreamWarmThroughput", m{"StreamName": "<S>", "WarmThroughputMiBps": 10}, m{
			"StreamName": "<S>", "StreamARN": "<ARN>", "WarmThroughput": m{"TargetMiBps": 10, "CurrentMiBps": anything},
		})
		c.active()
		c.want("summary", some{"WarmThroughput": some{"TargetMiBps": 10}}, c.summary())
		const tooMuch, text = 10*1024 + 1, "Warm throughput of 10241 MiB/s exceeds the maximum of 10240 MiB/s."
		c.refused("UpdateStreamWarmThroughput", m{"StreamName": "<S>", "WarmThroughputMiBps": tooMuch}, validation, text)
		c.refused("UpdateStreamMode", m{"StreamARN": "<ARN>", "StreamModeDetails": m{"StreamMode": "ON_DEMAND"}, "WarmThroughputMiBps": tooMuch}, validation, text)
		c.refused("CreateStream", m{"StreamName": "<S>-c", "WarmThroughputMiBps": tooMuch}, validation, text)
		c.s += "-b"
		c.create(1)
		c.refused("UpdateStreamWarmThroughput", m{"StreamName": "<S>", "WarmThroughputMiBps": 10}, validation, warmRefused)
	}},
}

// transitionRows are the operations that answer at once and go on behind.
var transitionRows = func() (rows []row) {
	for op, in := range map[string]m{
		"SplitShard": structural["SplitShard"], "MergeShards": structural["MergeShards"], "UpdateShardCount": structural["UpdateShardCount"],
		"UpdateStreamMode": structural["UpdateStreamMode"], "UpdateMaxRecordSize": structural["UpdateMaxRecordSize"],
		"EnableEnhancedMonitoring": structural["EnableEnhancedMonitoring"], "IncreaseStreamRetentionPeriod": structural["IncreaseStreamRetentionPeriod"],
		"StartStreamEncryption": structural["StartStreamEncryption"],
	} {
		rows = append(rows, row{"3.2 asynchronous/" + op, func(c *caller) {
			c.s = c.node.seed(c.T)
			if a := c.call(op, in); a.status != 200 {
				c.Fatalf("%d %s", a.status, a.raw)
			}
			c.want("summary", some{"StreamStatus": "UPDATING"}, c.summary())
		}})
	}
	return rows
}()

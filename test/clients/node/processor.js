// The record processor of one shard, which the MultiLangDaemon starts and talks
// to on the standard input and output. Its events go to the pipe EVENTS.
const fs = require("fs");
const kcl = require("aws-kcl");

let shard;
const say = (lines) => fs.appendFileSync(process.env.EVENTS, lines);

kcl({
  initialize(input, done) {
    shard = input.shardId;
    say(`leased ${shard}\n`);
    done();
  },
  processRecords({ records, checkpointer }, done) {
    for (const r of records) { // a line at a time: that is whole in a pipe, whoever else writes
      say(`record ${shard} ${r.sequenceNumber} 0 ${r.partitionKey} ${Buffer.from(r.data, "base64")}\n`);
    }
    const last = records.at(-1);
    if (!last) return done();
    // A checkpoint that fails is made up for by the next one.
    checkpointer.checkpoint(last.sequenceNumber, () => done());
  },
  leaseLost(input, done) {
    say(`lost ${shard}\n`);
    done();
  },
  shardEnded({ checkpointer }, done) {
    checkpointer.checkpoint((error) => {
      if (!error) say(`ended ${shard}\n`);
      done();
    });
  },
  shutdownRequested({ checkpointer }, done) {
    checkpointer.checkpoint(() => done());
  },
}).run();

// One worker of an application of aws-kcl: the MultiLangDaemon, which is the KCL
// in Java, with processor.js for each shard. It takes its settings from the
// variables of ../java/kcl's Worker, gives the processors' events on its standard
// output, and ends with its standard input.
const { execFileSync, spawn } = require("child_process");
const fs = require("fs");
const net = require("net");
const os = require("os");
const path = require("path");

const { APPLICATION, DYNAMODB, ENDPOINT, RETRIEVAL, STREAM, WORKER } = process.env;
const dir = fs.mkdtempSync(path.join(os.tmpdir(), "shardstream-kcl-"));
process.on("exit", () => fs.rmSync(dir, { recursive: true }));

const events = path.join(dir, "events");
execFileSync("mkfifo", [events]);
// r+: no end when no processor is there. A socket: a file's pending read would hold up the exit.
new net.Socket({ fd: fs.openSync(events, "r+"), writable: false }).pipe(process.stdout);

const properties = path.join(dir, "kcl.properties");
fs.writeFileSync(properties, `
executableName = ${process.execPath} ${path.join(__dirname, "processor.js")}
processingLanguage = nodejs
streamName = ${STREAM}
applicationName = ${APPLICATION}
workerId = ${WORKER}
AwsCredentialsProvider = EnvironmentVariableCredentialsProvider
regionName = us-east-1
kinesisEndpoint = ${ENDPOINT}
dynamoDBEndpoint = ${DYNAMODB}
metricsLevel = NONE
initialPositionInStream = TRIM_HORIZON
retrievalMode = ${RETRIEVAL === "fanout" ? "FANOUT" : "POLLING"}
failoverTimeMillis = 5000
shardSyncIntervalMillis = 5000
parentShardPollIntervalMillis = 1000
`);

const jars = path.join(__dirname, "..", "java", "multilang", "target", "lib", "*");
const daemon = spawn("java", [
  "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", jars,
  "software.amazon.kinesis.multilang.MultiLangDaemon", "--properties-file", properties,
], { stdio: ["ignore", process.stderr, process.stderr], env: { ...process.env, EVENTS: events } });
let asked = false;
daemon.on("exit", (status, signal) => process.exit(asked ? 0 : status ?? signal ? 1 : 0));
process.stdin.resume().on("end", () => { asked = true; daemon.kill(); });

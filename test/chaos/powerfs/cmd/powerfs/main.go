// Command powerfs mounts a file system that loses power when it is told so.
//
//	powerfs MOUNT BACKING --control SOCKET
package main

import (
	"os"

	"shardstream/test/chaos/powerfs"
)

func main() { os.Exit(powerfs.Run(os.Args[1:], os.Stdout, os.Stderr)) }

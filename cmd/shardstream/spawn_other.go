//go:build !linux

package main

import "syscall"

// childAttributes gives a child a process group of its own, so that Ctrl-C
// reaches only this process, which stops the children in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

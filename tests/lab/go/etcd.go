package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

func etcdCommand() *cobra.Command {
	var directory string
	var port int
	command := &cobra.Command{
		Use:   "etcd",
		Short: "one embedded etcd on the loopback address, without fsync",
		RunE: func(*cobra.Command, []string) error {
			client, err := url.Parse(fmt.Sprintf("http://127.0.0.1:%d", port))
			if err != nil {
				return err
			}
			peer, err := url.Parse("http://127.0.0.1:0")
			if err != nil {
				return err
			}
			config := embed.NewConfig()
			config.Dir = directory
			config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
			config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
			config.InitialCluster = config.InitialClusterFromName(config.Name)
			config.UnsafeNoFsync = true
			config.LogLevel = "warn"
			config.QuotaBackendBytes = 4 << 30
			config.AutoCompactionMode, config.AutoCompactionRetention = "periodic", "10m"
			server, err := embed.StartEtcd(config)
			if err != nil {
				return err
			}
			defer server.Close()
			select {
			case <-server.Server.ReadyNotify():
			case <-time.After(30 * time.Second):
				return fmt.Errorf("etcd was not ready after 30 s")
			case err := <-server.Err():
				return err
			}
			waitForSignal()
			return nil
		},
	}
	command.Flags().StringVar(&directory, "data-dir", "", "where it keeps its data")
	command.Flags().IntVar(&port, "port", 0, "client port on 127.0.0.1")
	return command
}

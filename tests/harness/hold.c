/* hold PID THREAD...: every thread of the process but those of these names stands still until standard input ends, as
   in a deadlock. SIGSTOP cannot do that: it stops all of them. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static int is_named(const char *name, char **names)
{
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return 1;
    return 0;
}

static void thread_name(const char *pid, const char *thread, char *name, int size)
{
    char path[128];
    name[0] = 0;
    snprintf(path, sizeof path, "/proc/%s/task/%s/comm", pid, thread);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    if (fgets(name, size, file))
        name[strcspn(name, "\n")] = 0;
    fclose(file);
}

int main(int count, char **words)
{
    if (count < 3) {
        fprintf(stderr, "usage: hold PID THREAD...\n");
        return 2;
    }
    char path[64], name[64];
    snprintf(path, sizeof path, "/proc/%s/task", words[1]);
    DIR *threads = opendir(path);
    if (!threads) {
        perror(path);
        return 1;
    }
    int held = 0, spared = 0;
    for (struct dirent *entry; (entry = readdir(threads));) {
        if (entry->d_name[0] == '.')
            continue;
        thread_name(words[1], entry->d_name, name, sizeof name);
        if (is_named(name, words + 2)) {
            spared++;
            continue;
        }
        pid_t thread = atoi(entry->d_name);
        if (ptrace(PTRACE_SEIZE, thread, 0, 0) || ptrace(PTRACE_INTERRUPT, thread, 0, 0)) {
            if (errno == ESRCH)
                continue;
            perror("ptrace");
            return 1;
        }
        int status;
        if (waitpid(thread, &status, __WALL) == thread && WIFSTOPPED(status))
            held++;
    }
    closedir(threads);
    printf("%d held, %d spared\n", held, spared);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    /* The end of the tracer lets them go. */
    return 0;
}

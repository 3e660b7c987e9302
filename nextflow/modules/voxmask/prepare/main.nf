process PREPARE {
    tag "$meta.id"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "voxmask/voxmask:0.1.0${task.accelerator ? '-cuda' : ''}"

    input:
    tuple val(meta), path(scans, stageAs: 'scans/?/*')

    output:
    tuple val(meta), path("${prefix}"),             emit: cohort
    tuple val(meta), path("${prefix}/cohort.html"), emit: page
    tuple val(meta), path("${prefix}/cohort.tsv"),  emit: table
    tuple val(meta), path("${prefix}.json"),        emit: report
    tuple val("${task.process}"), val('voxmask'), eval("voxmask-prepare --version | sed 's/^.* //'"), topic: versions, emit: versions_voxmask

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    prefix = task.ext.prefix ?: "${meta.id}_cohort"
    // Of what the job is given, a tenth is for what the executable does not count.
    def memory = task.memory ? "--memory ${(task.memory.toMega() * 0.9).intValue()}M" : ''
    // 65 and 66: scans that could not be used were left out; the report names them, the rest is done.
    """
    voxmask-prepare \\
        --input scans --output ${prefix} --report ${prefix}.json \\
        --device ${device} --threads ${task.cpus} ${memory} ${args} \\
        || { code=\$?; [ \$code -eq 65 ] || [ \$code -eq 66 ] || exit \$code; [ -s ${prefix}.json ] || exit \$code; }
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_cohort"
    """
    mkdir ${prefix}
    touch ${prefix}/cohort.html ${prefix}/cohort.tsv ${prefix}.json
    """
}
